"""The CPU as a target: NumPy arrays, and engines that run Numba's kernels on all cores."""

import math
import threading
from typing import Any

import numpy as np

from numbanet.arrays import as_host_array, as_host_matrix, as_host_output, as_host_vector
from numbanet.communicator import ALONE, Communicator, sum_in_pairs
from numbanet.cpu.composed_derivatives import ComposedDerivativeEngine
from numbanet.cpu.derivative_engine import DerivativeEngine
from numbanet.cpu.encoding_engine import EncodingEngine
from numbanet.cpu.engine import OPTIMIZER_CHUNK, CpuEngine, all_below, optimize
from numbanet.cpu.noise import Noise
from numbanet.cpu.pieces import PieceByPiece
from numbanet.cpu.row_loss import row_loss
from numbanet.cpu.uniform import fill_uniform
from numbanet.division import divide
from numbanet.engine import Batch, Gradients
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.parameters import AbstractParameters
from numbanet.quantization import Quantized, quantize
from numbanet.step_result import StepResult
from numbanet.target import SAMPLE, AbstractTarget, AbstractTraining

LARGE = 2.0**100  # parameters below stay finite in a tame optimizer's step


class CpuParameters(AbstractParameters):
    """NumPy array, which the kernels read directly, or a copy whose tables are in few bits."""

    def __init__(self, array: np.ndarray, quantized: tuple[Quantized, ...] = ()):
        self.own, self.quantized = array, quantized

    @property
    def master(self) -> np.ndarray:
        return self.own

    @property
    def array(self) -> np.ndarray:
        return self.own

    def assign(self, values: np.ndarray) -> None:
        self.from_host(values)
        self.n_assigned += 1

    def from_host(self, values: np.ndarray) -> None:
        self.own[:] = values

    def to_host(self) -> np.ndarray:
        return self.own

    def common(self) -> np.ndarray:
        return self.own

    def current(self) -> np.ndarray:
        return self.converted(self.own)

    def converted(self, values: np.ndarray) -> np.ndarray:
        return quantize(values, self.quantized) if self.quantized else values

    def in_float32(self, values: np.ndarray) -> np.ndarray:
        return self.converted(values)


class CpuTraining(AbstractTraining):
    """Training whose results are known when a step returns."""

    def __init__(
        self, engine: CpuEngine, parameters: CpuParameters, optimizer: AbstractOptimizer,
        layout: ParamLayout, comm: Communicator = ALONE,
    ):  # fmt: skip
        division = divide(optimizer, layout, comm, OPTIMIZER_CHUNK, 2 * comm.size * OPTIMIZER_CHUNK)
        super().__init__(parameters, optimizer, division, comm)
        params = parameters.array
        self.use(engine)
        self._params, self._layout = params, layout
        self.n_steps = self.n_skipped_steps = 0
        first, last = division.own
        self.state = np.ascontiguousarray(optimizer.initial_state(params)[:, first:last])
        n_matrices = len(optimizer.matrix_ranges(layout))
        self.matrices = np.zeros((optimizer.n_matrix_state, n_matrices), np.float32)
        self.statistics = np.zeros(optimizer.n_statistics(layout), np.float32)

    def use(self, engine):
        comm = self._comm
        self._engine = engine if comm.pieces is None else PieceByPiece(engine, comm)

    def whole_state(self):
        if self._division.bounds is None:
            return self.state
        first, last = self._division.own
        whole = np.zeros((len(self.state), self._layout.n_params), np.float32)
        whole[:, first:last] = self.state
        for row in whole:
            self._comm.fill(row, self._division.bounds)
        return whole

    def set_state(self, values):
        first, last = self._division.own
        self.state[...] = values[:, first:last]

    def is_begun(self, optimizer):
        return self.n_steps >= optimizer.n_calls_to_begin

    def take_weights(self) -> None:
        begin, _ = self._division.own
        for row, first, last in self._weight_rows:
            self.state[row, first - begin : last - begin] = self._params[first:last]

    def step(
        self, batch: Batch, params, loss, optimizer, gradients, dl_dinput, *, overwrite,
        run_optimizer,
    ) -> StepResult:  # fmt: skip
        if run_optimizer:
            self.check_count(self.n_steps)
        found = self._engine.forward_backward(
            batch, params, loss, gradients, dl_dinput, overwrite=overwrite
        )
        total = float(found.sums.sum())
        is_finite = math.isfinite(total)
        if run_optimizer:
            is_finite = is_finite and all_below(batch.inputs.reshape(-1))
            is_finite = is_finite and all_below(gradients.flat, optimizer.least_bad_gradient)
        total, is_finite = self._over_all_ranks(total, is_finite)
        value = total / found.n_elements
        if not run_optimizer:
            return StepResult(value)
        if not (is_finite and self.optimize(optimizer, gradients.flat)):
            self.n_skipped_steps += 1
            gradients.flat[:] = 0  # so that the next accumulation starts from 0
            return StepResult(value, skipped=True)
        self.n_steps += 1
        return StepResult(value)

    def _over_all_ranks(self, total: float, is_good: bool) -> tuple[float, bool]:
        """Sum of totals over all ranks, and whether all is good."""
        if self._comm.size == 1:
            return total, is_good
        values, are_good = self._comm.gather(np.array([total, is_good])).T
        return float(sum_in_pairs(values)), bool(are_good.all())

    def optimize(self, optimizer: AbstractOptimizer, gradients: np.ndarray) -> bool:
        """Step, and check that all is finite; if not, restore everything. Returns whether it is."""
        bounds, (first, last) = self._division.bounds, self._division.own
        own, of_this_rank = gradients[first:last], None
        if self._comm.size > 1 and self._comm.pieces is None:
            of_this_rank = own.copy()  # to which a later batch may be added
            own[...] = self._sum_of_own(gradients)
        changed = self._params[first:last], self.state, self.matrices, self.statistics
        is_safe = optimizer.is_tame and all_below(self._params, LARGE)
        before = () if is_safe else tuple(array.copy() for array in changed)
        t, (_, *others) = self.n_steps + 1, changed
        if t == optimizer.n_calls_to_begin:
            self.take_weights()
        optimize(optimizer, self._layout, t, self._params, gradients, *others, first=first)
        if of_this_rank is not None:
            own[...] = of_this_rank
        is_good = is_safe
        if not is_safe:
            is_good = all(all_below(array.reshape(-1)) for array in changed)
            _, is_good = self._over_all_ranks(0.0, is_good)
        if not is_good:
            for array, values in zip(changed, before, strict=True):
                array[...] = values
        elif bounds is not None:
            self._comm.fill(self._params, bounds)
        return is_good

    def _sum_of_own(self, gradients: np.ndarray) -> np.ndarray:
        """Sum over the ranks of the gradients that this one steps with."""
        bounds = self._division.bounds
        if bounds is None:
            return self._comm.reduce(gradients)
        return self._comm.reduce_part(gradients, bounds)


class CpuTarget(AbstractTarget):
    """The CPU as a target: all cores, float32."""

    name, precision = "cpu", "float32"

    def matrix(self, value, name, n_columns, n_rows=None):
        return as_host_matrix(value, name, n_columns, n_rows)

    def vector(self, value, name, n):
        return as_host_vector(value, name, n)

    def array(self, value, name, shape):
        return as_host_array(value, name, shape)

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

    def copy_columns(self, source, first, to, at, n, adds=False):
        if adds:
            to[:, at : at + n] += source[:, first : first + n]
        else:
            to[:, at : at + n] = source[:, first : first + n]

    def uniform(self, state, n, n_draws, n_threads):
        y = np.empty((n_draws, n_threads), np.float32)
        fill_uniform(np.uint64(state), y)
        return y.reshape(-1)[:n]

    def write_mean(self, loss, value):
        value[...] = loss.sums[: loss.n].sum() / loss.n_elements

    def row_loss(self, loss, batch, outputs, dl_dy):
        return row_loss(loss, batch, outputs, dl_dy)

    def noise(self, state):
        return Noise(state)

    def lock(self):
        return threading.RLock()

    def parameters(self, values, n_matrix_params, quantized=()):
        return CpuParameters(values.astype(np.float32), quantized)

    def gradients(self, n_params, n_matrix_params):
        return Gradients(self.zeros(n_params))

    def gradients_in(self, flat, n_matrix_params):
        return Gradients(flat)

    def network_engine(self, model):
        return CpuEngine(model)

    def encoding_engine(self, encoding):
        return EncodingEngine(encoding)

    def derivative_engine(self, composition):
        network = composition.lone_network
        if network is not None:
            return DerivativeEngine(network)
        return ComposedDerivativeEngine(composition)

    def device_functions(self, model, **options):
        raise ValueError(
            "a model on the CPU has no device functions; create it with device='cuda', or call "
            "`inference`"
        )

    def many(self, model, params, optimizers, layout, deterministic=False, quantized=()):
        from numbanet.cpu.many import CpuMany

        return CpuMany(model, params, optimizers, layout, quantized)

    def training(self, engine: Any, parameters, optimizer, layout, comm=ALONE):
        return CpuTraining(engine, parameters, optimizer, layout, comm)
