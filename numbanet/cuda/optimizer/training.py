"""Training steps on a CUDA device: queued as a whole, with nothing read back."""

from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.driver.graphs import Graphs
from numbanet.cuda.errors import CudaError
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, empty, to_device, zeros
from numbanet.cuda.memory.parameters import CudaParameters
from numbanet.cuda.optimizer import kernels
from numbanet.cuda.optimizer.matrices import Operations
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.cuda.optimizer.results import PendingResult, Results
from numbanet.engine import Batch, Engine, Gradients, LossSums
from numbanet.losses.base import AbstractLoss
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.target import AbstractTraining

FLOAT_BYTES = 4


class CudaTraining(AbstractTraining):
    """Steps whose results are known when the device has made them."""

    def __init__(
        self,
        device: Any,
        engine: Engine,
        parameters: CudaParameters,
        optimizer: AbstractOptimizer,
        layout: ParamLayout,
    ):
        self._device, self._engine = device, engine
        super().__init__(parameters, optimizer, layout.n_params)
        self._layout = layout
        self.state = to_device(optimizer.initial_state(parameters.master.numpy()), device)
        self._n_matrices = len(optimizer.matrix_ranges(layout))
        shape = optimizer.n_matrix_state, self._n_matrices
        self.matrices = zeros(shape, np.float32, device)
        self.statistics = zeros((optimizer.n_statistics(layout),), np.float32, device)
        self._has_statistics = self.statistics.size > 0
        self._n_known = 0  # steps that were made, for all that the host knows
        self._n_asked = 0  # steps that were asked for since, of which some may be skipped
        self._control = zeros((kernels.N_CONTROL,), np.uint32, device)
        self._results = Results(device)
        self._kernels = {}
        self._latest = None  # optimizer
        self._of_latest = None
        self._losses = {}  # losses that were computed, and their numbers
        self._latest_loss = None, 0
        self._graphs = Graphs(device)

    def _kernels_of(self, optimizer: AbstractOptimizer) -> tuple[OptimizerKernels, bool]:
        """The kernels, and whether the optimizer is tame."""
        if optimizer is self._latest:  # a value that does not change
            return self._of_latest
        key = optimizer.kernel_key()
        if key not in self._kernels:
            precision = self._engine.precision
            self._kernels[key] = OptimizerKernels(self._device, optimizer, self._layout, precision)
        found = self._kernels[key]
        found.set_hyperparams(optimizer)
        self._latest, self._of_latest = optimizer, (found, optimizer.is_tame)
        return self._of_latest

    def _number_of(self, loss: AbstractLoss | None) -> int:
        """The same for equal losses: a number, which keys of graphs are compared by at no cost."""
        latest, number = self._latest_loss
        if loss is not latest:
            number = self._losses.setdefault(loss, len(self._losses))
            self._latest_loss = loss, number
        return number

    @cached_property
    def _matrix_sums(self) -> DeviceArray:
        per_matrix = int(kernels.SUM_LANES) // WARP
        return empty((self._n_matrices * per_matrix,), np.float32, self._device)

    @cached_property
    def _operations(self) -> Operations:
        return Operations(self._device)

    def _counter(self, k: int) -> int:
        return int(self._control.numpy()[int(k)])

    def _set_counter(self, k: int, value: int) -> None:
        host = np.array([value], np.uint32)
        self._device.copy_to_device(self._control.address + 4 * int(k), host)

    @property
    def n_steps(self) -> int:
        """Steps made; asking waits for the device."""
        self._n_known, self._n_asked = self._counter(kernels.N_STEPS), 0
        return self._n_known

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._n_known, self._n_asked = value, 0
        self._set_counter(kernels.N_STEPS, value)

    @property
    def n_skipped_steps(self) -> int:
        """Steps skipped; asking waits for the device."""
        return self._counter(kernels.N_SKIPPED)

    @n_skipped_steps.setter
    def n_skipped_steps(self, value: int) -> None:
        self._set_counter(kernels.N_SKIPPED, value)

    def step(
        self, batch: Batch, params, loss, optimizer, gradients, dl_dinput, *, overwrite,
        run_optimizer,
    ) -> PendingResult:  # fmt: skip
        with self._device.lock:
            if run_optimizer and self._n_known + self._n_asked >= MOST_STEPS:
                self._check_count(self.n_steps)
            found, is_tame = self._kernels_of(optimizer)
            found.prepare(run_optimizer)
            may_begin = run_optimizer and self._weight_rows and self._may_begin(optimizer)
            if may_begin and not self.is_begun(optimizer):
                self._take_weights()
            result = self._results.next()
            work = (
                found, batch, params, loss, optimizer, gradients, dl_dinput, overwrite,
                run_optimizer,
            )  # fmt: skip
            try:
                # The host takes part in such a step, or it is rare.
                if self._has_statistics or (run_optimizer and not is_tame):
                    self._queue(*work)
                else:
                    inputs, targets, pdf, dl_dy = (
                        batch.inputs, batch.targets, batch.pdf, batch.external_dl_dy,
                    )  # fmt: skip
                    key = (
                        *(found, self._number_of(loss), overwrite, run_optimizer),
                        *(gradients is None, inputs.shape[0], inputs.address, params.address),
                        0 if targets is None else targets.address,
                        0 if pdf is None else pdf.address,
                        0 if dl_dy is None else dl_dy.address,
                        0 if dl_dinput is None else dl_dinput.address,
                        self._engine.generation,
                    )
                    self._graphs.run(key, self._queue, *work)
            except BaseException:
                self._recover()
                raise
            self._n_asked += run_optimizer
            return result

    def _recover(self) -> None:
        """After a step that was not queued to its end: agree with the device about what was."""
        try:
            self._results.resume(self._counter(kernels.N_RESULTS))
        except CudaError:
            return  # the device is lost, which the exception under way says

    def _queue(
        self, found, batch, params, loss, optimizer, gradients, dl_dinput, overwrite, run_optimizer
    ) -> None:
        """Queue the kernels of a step; whatever they need is there after the first time."""
        sums = self._engine.forward_backward(
            batch, params, loss, gradients, dl_dinput, overwrite=overwrite
        )
        self._finish(found, batch, gradients, sums, run_optimizer)
        if run_optimizer:
            if optimizer.is_tame:
                self._optimize(found, optimizer, gradients)
            else:
                self._try_to_optimize(found, optimizer, gradients)

    def is_begun(self, optimizer):
        n = optimizer.n_calls_to_begin
        # Waits for the device once, unless steps are skipped.
        return self._n_known >= n or (self._n_known + self._n_asked >= n and self.n_steps >= n)

    def _may_begin(self, optimizer: AbstractOptimizer) -> bool:
        """Whether the step that is asked for may be the one that begins."""
        n = optimizer.n_calls_to_begin
        return self._n_known < n <= self._n_known + self._n_asked + 1

    def _take_weights(self) -> None:
        master, n = self._parameters.master.address, self._layout.n_params
        for row, first, last in self._weight_rows:
            to = self.state.address + (row * n + first) * FLOAT_BYTES
            self._device.copy(to, master + first * FLOAT_BYTES, (last - first) * FLOAT_BYTES)

    def _finish(
        self, found: OptimizerKernels, batch: Batch, gradients: Gradients, loss: LossSums,
        run_optimizer: bool,
    ) -> None:  # fmt: skip
        checked = ()
        if run_optimizer:
            checked = batch.inputs, gradients.flat
            if loss.noted is not None:
                n_network = self._engine.model.network.n_params
                checked = batch.inputs, gradients.flat[:n_network], loss.noted
        most = max((array.size for array in checked), default=1)
        found.finish(
            min(-(-most // BLOCK), kernels.MOST_BLOCKS),
            *(number for array in checked for number in (array.address, array.size)),
            *((0, 0) * (kernels.MOST_CHECKED - len(checked))),
            *(loss.sums.address, loss.n, 1.0 / loss.n_elements),
            *(self._control.address, self._results.history.address),
            *(found.hyperparams.address, found.scalars.address, int(run_optimizer)),
        )

    @cached_property
    def _verify(self) -> Kernel:
        return Kernel(self._device, kernels.verify_step)

    @cached_property
    def _restore(self) -> Kernel:
        return Kernel(self._device, kernels.restore)

    def _try_to_optimize(
        self, found: OptimizerKernels, optimizer: AbstractOptimizer, gradients: Gradients
    ) -> None:
        """Step, and take it back if something is infinite or NaN afterwards; see is_tame."""
        weights, control = self._parameters.master, self._control.address
        changed = [weights, self.state, self.matrices, self.statistics]
        before = [empty((array.size,), np.float32, self._device) for array in changed]
        for array, copy in zip(changed, before, strict=True):
            self._device.copy(copy.address, array.address, array.nbytes)
        self._optimize(found, optimizer, gradients)
        most = max(weights.size, self.state.size)
        self._verify(
            min(-(-most // BLOCK), kernels.MOST_BLOCKS),
            *(weights.address, weights.size, self.state.address, self.state.size),
            *(control, self._results.history.address),
        )
        changed.append(gradients.flat)
        before.append(zeros((gradients.flat.size,), np.float32, self._device))
        for array, copy in zip(changed, before, strict=True):
            if array.size:
                self._restore.over(array.size, copy.address, array.address, array.size, control)
        self._parameters.touch()

    def _optimize(
        self, found: OptimizerKernels, optimizer: AbstractOptimizer, gradients: Gradients
    ) -> None:
        weights, copy = self._parameters.master, self._parameters.copy
        control, scalars = self._control.address, found.scalars.address
        arrays = weights.address, gradients.flat.address, self.state.address, scalars
        matrices, n = self.matrices.address, weights.size
        if optimizer.n_matrix_state:
            sums, n_matrices = self._matrix_sums.address, self._n_matrices
            grid = int(kernels.SUM_LANES) // BLOCK, n_matrices
            found.summands(grid, *arrays, sums, control)
            found.matrix_step(n_matrices, sums, matrices, scalars, control)
        if self._has_statistics and self._counter(kernels.RUNS):  # which waits for the device
            optimizer.precondition(
                self._operations, self._layout, self.state, self.matrices, self.statistics,
                found.scalars,
            )  # fmt: skip
        found.optimize.over(n // found.group_size, *arrays, matrices, copy.address, control, n)
