"""The CPU as a target: NumPy arrays, and engines that run Numba's kernels on all cores."""

import math
from typing import Any

import numpy as np

from numbanet.arrays import as_host_matrix, as_host_output, as_host_vector
from numbanet.cpu.encoding_engine import EncodingEngine
from numbanet.cpu.engine import CpuEngine, all_below, optimize
from numbanet.engine import Batch, Gradients
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.random import host_uniform
from numbanet.target import SAMPLE, AbstractParameters, AbstractTarget, AbstractTraining, StepResult

LARGE = 2.0**100  # parameters below stay finite in a tame optimizer's step


class CpuParameters(AbstractParameters):
    """A NumPy array, which the kernels read as it is."""

    def __init__(self, array: np.ndarray):
        self.master = array

    @property
    def array(self) -> np.ndarray:
        return self.master

    def assign(self, values: np.ndarray) -> None:
        self.master[:] = values
        self.n_assigned += 1

    def current(self) -> np.ndarray:
        return self.master

    def converted(self, values: np.ndarray) -> np.ndarray:
        return values


class CpuTraining(AbstractTraining):
    """Steps whose results are known when they return."""

    def __init__(
        self, engine: CpuEngine, parameters: CpuParameters, optimizer: AbstractOptimizer,
        layout: ParamLayout,
    ):  # fmt: skip
        super().__init__(parameters, optimizer, layout.n_params)
        params = parameters.array
        self._engine, self._params, self._layout = engine, params, layout
        self.n_steps = self.n_skipped_steps = 0
        self.state = optimizer.initial_state(params)
        n_matrices = len(optimizer.matrix_ranges(layout))
        self.matrices = np.zeros((optimizer.n_matrix_state, n_matrices), np.float32)
        self.statistics = np.zeros(optimizer.n_statistics(layout), np.float32)

    def is_begun(self, optimizer):
        return self.n_steps >= optimizer.n_calls_to_begin

    def _take_weights(self) -> None:
        for row, first, last in self._weight_rows:
            self.state[row, first:last] = self._params[first:last]

    def step(
        self, batch: Batch, params, loss, optimizer, gradients, dl_dinput, *, overwrite,
        run_optimizer,
    ) -> StepResult:  # fmt: skip
        if run_optimizer:
            self._check_count(self.n_steps)
        found = self._engine.forward_backward(
            batch, params, loss, gradients, dl_dinput, overwrite=overwrite
        )
        value = float(found.sums.sum() / found.n_elements)
        if not run_optimizer:
            return StepResult(value)
        is_finite = all_below(batch.inputs.reshape(-1)) and math.isfinite(value)
        is_finite = is_finite and all_below(gradients.flat, optimizer.least_bad_gradient)
        if not (is_finite and self._optimize(optimizer, gradients.flat)):
            self.n_skipped_steps += 1
            gradients.flat[:] = 0  # so that what is accumulated next starts anew
            return StepResult(value, skipped=True)
        self.n_steps += 1
        return StepResult(value)

    def _optimize(self, optimizer: AbstractOptimizer, gradients: np.ndarray) -> bool:
        """Step, and whether all is finite afterwards; if not, all is as it was before."""
        changed = self._params, self.state, self.matrices, self.statistics
        is_safe = optimizer.is_tame and all_below(self._params, LARGE)
        before = () if is_safe else tuple(array.copy() for array in changed)
        if self.n_steps + 1 == optimizer.n_calls_to_begin:
            self._take_weights()
        params, *others = changed
        optimize(optimizer, self._layout, self.n_steps + 1, params, gradients, *others)
        if is_safe or all(all_below(array.reshape(-1)) for array in changed):
            return True
        for array, values in zip(changed, before, strict=True):
            array[...] = values
        return False


class CpuTarget(AbstractTarget):
    """All cores, float32."""

    name, precision = "cpu", "float32"

    def matrix(self, value, name, n_columns, n_rows=None):
        return as_host_matrix(value, name, n_columns, n_rows)

    def vector(self, value, name, n):
        return as_host_vector(value, name, n)

    def output(self, value, name, shape):
        return as_host_output(value, name, shape)

    def overlap(self, a, b):
        return np.may_share_memory(a, b)

    def empty(self, *shape):
        return np.empty(shape, np.float32)

    def zeros(self, *shape):
        return np.zeros(shape, np.float32)

    def set_zero(self, array):
        array[...] = 0

    def from_host(self, array):
        return array.copy()

    def sampled(self, array):
        return array[:: -(-len(array) // SAMPLE)].copy()

    def to_host(self, array):
        return array

    def copy_from_host(self, array, values):
        array[...] = values

    def uniform(self, state, n, n_draws, n_threads):
        return host_uniform(state, n, n_draws, n_threads)

    def write_mean(self, loss, value):
        value[...] = loss.sums[: loss.n].sum() / loss.n_elements

    def parameters(self, values, n_matrix_params):
        return CpuParameters(values.astype(np.float32))

    def gradients(self, n_params, n_matrix_params):
        return Gradients(self.zeros(n_params))

    def gradients_in(self, flat, n_matrix_params):
        return Gradients(flat)

    def network_engine(self, model):
        return CpuEngine(model)

    def encoding_engine(self, encoding):
        return EncodingEngine(encoding)

    def device_functions(self, model, **options):
        raise ValueError(
            "a model on the CPU has no device functions; create it with device='cuda', or call "
            "`inference`"
        )

    def training(self, engine: Any, parameters, optimizer, layout):
        return CpuTraining(engine, parameters, optimizer, layout)
