"""Dr.Jit on its LLVM backend: hash grid and network traced, differentiated and frozen.

DRJIT_BACKEND=cuda takes its CUDA backend instead.

The grid is one fused kernel in both directions, gathering and scattering pairs. The network runs
in one of Dr.Jit's two ways: matrix products of tensors (samples as rows: three times as fast as
samples as columns), or drjit.nn on cooperative vectors, fused with the grid into one kernel, which
is the quicker for inference and the slower for training.
"""

import importlib
import os

import drjit as dr
import numpy as np
from drjit import nn

from benchmarks.harness.grid import HASH_PRIME, LEVELS
from benchmarks.harness.reference import split
from benchmarks.harness.samples import BETA1, BETA2, HASH, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.method import Method

EPSILON, L2_REG = HASH["optimizer"]["epsilon"], HASH["optimizer"]["l2_reg"]

BACKEND = os.environ.get("DRJIT_BACKEND", "llvm")
if not dr.has_backend(getattr(dr.JitBackend, BACKEND.upper())):
    raise ImportError(
        "no libLLVM found: apt-get install libllvm19, or set DRJIT_LIBLLVM_PATH"
        if BACKEND == "llvm"
        else f"Dr.Jit cannot use its {BACKEND} backend here"
    )

types = importlib.import_module(f"drjit.{BACKEND}.ad")
Array2f, Array3f, ArrayXf = types.Array2f, types.Array3f, types.ArrayXf
Float, TensorXf, UInt = types.Float, types.TensorXf, types.UInt


def interpolate(table, positions):
    """Return 32 features."""
    features = []
    for level in LEVELS:
        at = [dr.fma(axis, level.scale, 0.5) for axis in positions]
        cell = [UInt(axis) for axis in at]
        right, down = (axis - Float(whole) for axis, whole in zip(at, cell, strict=True))
        total = [Float(0), Float(0)]
        for dx, dy in (0, 0), (1, 0), (0, 1), (1, 1):
            x, y = cell[0] + dx, cell[1] + dy
            if level.hashed:
                entry = (x ^ (y * UInt(HASH_PRIME))) & (level.n_entries - 1)
            else:
                entry = x + y * level.resolution
                entry = dr.select(entry >= level.n_entries, entry - level.n_entries, entry)
            weight = (right if dx else 1 - right) * (down if dy else 1 - down)
            values = dr.gather(Array2f, table, entry + level.offset)
            total = [dr.fma(weight, value, sum_) for value, sum_ in zip(values, total, strict=True)]
        features += total
    return features


def relative_l2(outputs, targets):
    """Return the sum over samples and outputs."""
    scale = 1 / (dr.square(dr.detach(outputs)) + LOSS_EPSILON)
    return dr.sum(dr.square(outputs - targets) * scale, axis=None)


def adam(param, gradient, state, active):
    """Return the updated parameter and state; the state keeps the powers of beta per entry."""
    first, second, power1, power2 = state
    updated = (
        BETA1 * first + (1 - BETA1) * gradient,
        BETA2 * second + (1 - BETA2) * dr.square(gradient),
        dr.maximum(power1 * BETA1, 1e-30),
        dr.maximum(power2 * BETA2, 1e-30),
    )
    first, second, power1, power2 = state = tuple(
        dr.select(active, new, old) for new, old in zip(updated, state, strict=True)
    )
    rate = LEARNING_RATE * dr.sqrt(1 - power2) / (1 - power1)
    change = rate * first / (dr.sqrt(second) + EPSILON)
    return param - dr.select(active, change, 0), state


def adam_state(param):
    shape = dr.shape(param)
    return tuple(dr.opaque(type(param), value, shape) for value in (0, 0, 1, 1))


class DrJit(Method):
    """Base of both ways; each batch size has frozen functions of its own."""

    def __init__(self, job, params):
        if job.encoding != "HashGrid":
            raise NotImplementedError("for Dr.Jit only the hash grid is written")
        *matrices, table = split(params, job.shapes)
        self.matrices = [TensorXf(np.ascontiguousarray(matrix)) for matrix in matrices]
        self.table = Float(table.ravel())
        self.matrix_states = [adam_state(matrix) for matrix in self.matrices]
        self.table_state = adam_state(self.table)
        dr.eval(self.matrices, self.table)
        self.frozen = {}

    def versions(self):
        return {"drjit": dr.__version__, "LLVM": ".".join(map(str, dr.detail.llvm_version()))}

    def place(self, array):
        if array.shape[1] == 2:
            placed = Array2f(np.ascontiguousarray(array.T))
        else:
            placed = self.place_targets(array)
        dr.eval(placed)
        return placed

    def wait(self, result):
        dr.eval(result)
        dr.sync_thread()
        return result

    def call(self, function, n, *args):
        key = function.__name__, n
        if key not in self.frozen:
            self.frozen[key] = dr.freeze(lambda *args: function(*args, n))
        return self.frozen[key](*args)

    def differentiate(self, matrices, table, positions, targets, n):
        dr.enable_grad(matrices, table)
        value = relative_l2(self.outputs(matrices, table, positions, n), targets) / (3 * n)
        dr.backward(value)
        gradients = [dr.grad(param) for param in (*matrices, table)]
        dr.disable_grad(matrices, table)
        return dr.detach(value), gradients

    def training_step(self, matrices, matrix_states, table, table_state, positions, targets, n):
        value, (*dl_dmatrices, dl_dtable) = self.differentiate(
            matrices, table, positions, targets, n
        )
        updated = [
            adam(matrix, gradient + L2_REG * matrix, state, active=True)
            for matrix, gradient, state in zip(matrices, dl_dmatrices, matrix_states, strict=True)
        ]
        matrices, matrix_states = map(list, zip(*updated, strict=True))
        table, table_state = adam(table, dl_dtable, table_state, dl_dtable != 0)
        return value, matrices, matrix_states, table, table_state

    def step(self, positions, targets):
        state = self.matrices, self.matrix_states, self.table, self.table_state
        n = dr.width(positions)
        value, *state = self.call(self.training_step, n, *state, positions, targets)
        self.matrices, self.matrix_states, self.table, self.table_state = state
        return value

    def inference(self, positions):
        n = dr.width(positions)
        return self.call(self.outputs, n, self.matrices, self.table, positions)

    def loss_and_gradients(self, positions, targets):
        n = dr.width(positions)
        value, gradients = self.differentiate(self.matrices, self.table, positions, targets, n)
        return self.number(value), flatten(gradients)

    def number(self, loss):
        return float(loss.array[0])

    def params(self):
        return flatten([*self.matrices, self.table])


class DrJitTensors(DrJit):
    place_targets = TensorXf

    def outputs(self, matrices, table, positions, n):
        """Return a tensor [n, 3]."""
        features = ArrayXf(*interpolate(table, positions))
        hidden = TensorXf(dr.ravel(features, order="F"), (n, 2 * len(LEVELS)))
        first, second, third = matrices
        hidden = dr.maximum(dr.matmul(hidden, first, Bt=True), 0)
        hidden = dr.maximum(dr.matmul(hidden, second, Bt=True), 0)
        return dr.matmul(hidden, third, Bt=True)

    def numpy(self, outputs):
        return np.array(outputs)


class DrJitCoopVec(DrJit):
    def place_targets(self, array):
        return Array3f(np.ascontiguousarray(array.T))

    def outputs(self, matrices, table, positions, n):
        """Return three columns."""
        first, second, third = map(nn.view, matrices)
        hidden = nn.CoopVec(interpolate(table, positions))
        hidden = dr.maximum(nn.matvec(first, hidden), 0)
        hidden = dr.maximum(nn.matvec(second, hidden), 0)
        return Array3f(*nn.matvec(third, hidden))

    def numpy(self, outputs):
        return np.array(outputs).T


def flatten(params):
    return np.concatenate([np.array(param).ravel() for param in params])
