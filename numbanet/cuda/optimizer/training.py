"""Training steps on a CUDA device: queued as a whole, with nothing read back."""

from functools import cached_property, partial
from typing import Any

import numpy as np

from numbanet.communicator import ALONE, Communicator
from numbanet.cuda.errors import CudaError
from numbanet.cuda.launch.kernel import BLOCK
from numbanet.cuda.launch.threads import WARP
from numbanet.cuda.memory.arrays import DeviceArray, empty, to_device, zeros
from numbanet.cuda.memory.parameters import CudaParameters, address_before
from numbanet.cuda.optimizer import kernels
from numbanet.cuda.optimizer.matrices import Operations
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.cuda.optimizer.over_ranks import OverRanks, division_for
from numbanet.cuda.optimizer.recurring_steps import RecurringSteps
from numbanet.cuda.optimizer.results import PendingResult, Results
from numbanet.cuda.optimizer.table_steps import TableSteps
from numbanet.engine import Batch, Engine, LossSums
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.storage.views import FLOAT_BYTES
from numbanet.target import AbstractTraining


class CudaTraining(AbstractTraining):
    """Training whose results are known when the device has made a step."""

    _most_blocks = kernels.MOST_BLOCKS  # that look for infinities and NaN

    def __init__(
        self,
        device: Any,
        engine: Engine,
        parameters: CudaParameters,
        optimizer: AbstractOptimizer,
        layout: ParamLayout,
        comm: Communicator = ALONE,
    ):
        self._device, self._engine = device, engine
        super().__init__(parameters, optimizer, division_for(optimizer, layout, comm), comm)
        self._layout = layout
        self._over_ranks, self.weighs_batches = None, comm.size > 1
        self._is_alone = comm.size == 1  # else hosts may speak before each step
        if self.weighs_batches:
            self._over_ranks = OverRanks(device, comm, self._division, layout)
        initial = self._own(optimizer.initial_state(parameters.master.numpy()))
        self.state = to_device(initial, device)
        self._n_matrices = len(optimizer.matrix_ranges(layout))
        self.matrices = zeros((optimizer.n_matrix_state, self._n_matrices), np.float32, device)
        self.statistics = zeros((optimizer.n_statistics(layout),), np.float32, device)
        self._preconditions = optimizer.preconditions(layout)
        self._n_known = 0  # steps that were made, for all that the host knows
        self._n_asked = 0  # steps that were asked for since, of which some may be skipped
        self._control = zeros((kernels.N_CONTROL,), np.uint32, device)
        self._results = Results(device)
        self._kernels = {}
        self._latest = None  # optimizer
        self._of_latest = None
        self._recurring = RecurringSteps(device)
        self._table_steps = TableSteps(device, parameters, layout)

    def _kernels_of(self, optimizer: AbstractOptimizer) -> tuple[OptimizerKernels, bool]:
        """Kernels of an optimizer, and whether it is tame."""
        if optimizer is self._latest:  # a value that does not change
            return self._of_latest
        key = optimizer.kernel_key()
        if key not in self._kernels:
            pitch = None if self._over_ranks is None else self.state.shape[1]
            self._kernels[key] = OptimizerKernels(
                self._device, optimizer, self._layout, self._engine.precision, pitch
            )
        found = self._kernels[key]
        found.set_hyperparams(optimizer)
        self._latest, self._of_latest = optimizer, (found, optimizer.is_tame)
        return self._of_latest

    @cached_property
    def _matrix_sums(self) -> DeviceArray:
        n = self._n_matrices * (int(kernels.SUM_LANES) // WARP)
        return empty((n,), np.float32, self._device)

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
        """Number of steps made; reading it waits for the device."""
        self._n_known, self._n_asked = self._counter(kernels.N_STEPS), 0
        return self._n_known

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._n_known, self._n_asked = value, 0
        self._set_counter(kernels.N_STEPS, value)

    @property
    def n_skipped_steps(self) -> int:
        """Number of steps skipped; reading it waits for the device."""
        return self._counter(kernels.N_SKIPPED)

    @n_skipped_steps.setter
    def n_skipped_steps(self, value: int) -> None:
        self._set_counter(kernels.N_SKIPPED, value)

    def whole_state(self):
        over_ranks = self._over_ranks
        return self.state.numpy() if over_ranks is None else over_ranks.whole(self.state)

    def set_state(self, values):
        self._device.copy_to_device(self.state.address, self._own(values))

    def _own(self, values: np.ndarray) -> np.ndarray:
        first, last = self._division.own
        return np.ascontiguousarray(values[:, first:last], np.float32)

    def step(
        self, batch: Batch, params, loss, optimizer, gradients, dl_dinput, *, overwrite,
        run_optimizer,
    ) -> PendingResult:  # fmt: skip
        with self._device.lock:
            if run_optimizer and self._n_known + self._n_asked >= MOST_STEPS:
                self.check_count(self.n_steps)
            found, is_tame = self._kernels_of(optimizer)
            found.prepare(run_optimizer)
            if run_optimizer and self._weight_rows:
                self._prepare_to_begin(optimizer)
            if self._over_ranks is not None:
                self._over_ranks.prepare(optimizer, loss, self._parameters)
            result = self._results.next()
            given = batch, params, loss, gradients, dl_dinput
            work = found, given, optimizer, overwrite, run_optimizer
            try:
                # The host takes part in such a step, or it is rare.
                takes_part = self._preconditions or (run_optimizer and not is_tame)
                of_ranks = self._engine if self._over_ranks is None else self._over_ranks
                if takes_part or not of_ranks.is_queued:
                    self._queue(*work)
                else:
                    self._recurring.run(self._queue, work, self._parameters, self._engine)
            except BaseException:
                self._recover()
                raise
            self._n_asked += run_optimizer
            return result

    def again(self, inputs, targets, loss, optimizer):
        with self._device.lock:
            step = self._recurring.usual(inputs, targets, loss, self._engine, self._parameters)
            if step is None or not self._is_alone:
                return None
            found, is_tame = self._kernels_of(optimizer)
            if not (
                found is step.kernels and is_tame and self._parameters.are_current
                and self._n_assigned == self._parameters.n_assigned
                and self._n_known + self._n_asked < MOST_STEPS
            ):  # fmt: skip
                return None
            if self._weight_rows:
                self._prepare_to_begin(optimizer)
            result = self._results.next()
            try:
                self._recurring.replay(step)
            except BaseException:
                self._recover()
                raise
            self._n_asked += 1
            return result

    def _recover(self) -> None:
        """Synchronise the count of results with the device, after a step was not fully queued."""
        try:
            self._results.resume(self._counter(kernels.N_RESULTS))
        except CudaError:
            return  # the device is lost, which the exception under way says

    def _queue(self, found, given, optimizer, overwrite, run_optimizer) -> None:
        """Queue the kernels of a step, all of whose memory exists after the first time."""
        gradients, is_whole = given[3], overwrite and run_optimizer and self._over_ranks is None
        finish, steps = partial(self._finish, found, given, run_optimizer), self._table_steps
        if is_whole and steps.serve(self._engine, given):
            if steps.collect(self._engine, found, optimizer, len(given[0])):
                steps(self._engine, found, given, finish, self._addresses(found))
                return
            steps.decide_beside(self._engine, given, finish)
        else:
            finish(self._engine.forward_backward(*given, overwrite=overwrite))
        if run_optimizer:
            step = self._optimize if optimizer.is_tame else self._try_to_optimize
            step(found, optimizer, gradients.flat)
            if self._over_ranks is not None:
                self._over_ranks.end(gradients.flat, self._parameters, self._control.address)

    def _addresses(self, found: OptimizerKernels) -> tuple[int, ...]:
        """Addresses of all weights, and of what their steps need beside gradients."""
        weights = self._parameters.address_for(0, self._layout.n_params)
        arrays = self.state, found.scalars, self.matrices, self._parameters.copy, self._control
        return weights, *(array.address for array in arrays)

    def is_begun(self, optimizer):
        n = optimizer.n_calls_to_begin
        # Waits for the device once, unless steps are skipped.
        return self._n_known >= n or (self._n_known + self._n_asked >= n and self.n_steps >= n)

    def _prepare_to_begin(self, optimizer: AbstractOptimizer) -> None:
        """Copy the weights to the state if the next step may be the one that begins it."""
        n = optimizer.n_calls_to_begin
        may_begin = self._n_known < n <= self._n_known + self._n_asked + 1
        if may_begin and not self.is_begun(optimizer):
            self.take_weights()

    def take_weights(self) -> None:
        begin, end = self._division.own
        master, n = self._parameters.address_for(begin, end), self.state.shape[1]
        for row, first, last in self._weight_rows:
            to = self.state.address + (row * n + first - begin) * FLOAT_BYTES
            self._device.copy(to, master + first * FLOAT_BYTES, (last - first) * FLOAT_BYTES)

    def _finish(self, found: OptimizerKernels, given: tuple, runs: bool, loss: LossSums) -> None:
        gradients, checked = given[3], ()
        if runs:
            checked = (gradients.flat,)
            if loss.noted is not None:
                checked = gradients.flat[: self._engine.model.network.n_params], loss.noted
        if self._over_ranks is not None:
            device_memory = self._control.address, self._results.history.address
            self._over_ranks.finish(found, given, checked, loss, device_memory, runs)
            return
        most = max((array.size for array in checked), default=1)
        found.finish(
            min(-(-most // BLOCK), self._most_blocks),
            *(number for array in checked for number in (array.address, array.size)),
            *((0, 0) * (kernels.MOST_CHECKED - len(checked))),
            *(loss.sums.address, loss.n, 1.0 / loss.n_elements),
            *(self._control.address, self._results.history.address),
            *(found.hyperparams.address, found.scalars.address, int(runs)),
        )

    def _precondition(self, optimizer: AbstractOptimizer, scalars: DeviceArray) -> None:
        if self._counter(kernels.RUNS):  # which waits for the device
            optimizer.precondition(
                self._operations, self._layout, self.state, self.matrices, self.statistics, scalars
            )

    def _try_to_optimize(
        self, found: OptimizerKernels, optimizer: AbstractOptimizer, gradients: DeviceArray
    ) -> None:
        """Step, and undo it if a result is infinite or NaN; see is_tame."""
        parameters, control = self._parameters, self._control.address
        parameters.address_for(*self._division.own)
        changed = [parameters.own, self.state, self.matrices, self.statistics]
        before = [empty((array.size,), np.float32, self._device) for array in changed]
        for array, copy in zip(changed, before, strict=True):
            self._device.copy(copy.address, array.address, array.nbytes)
        self._optimize(found, optimizer, gradients)
        looked_at = parameters.own, self.state
        if self._over_ranks is not None:
            votes = self._over_ranks.vote(found.vote_after, looked_at, None, control)
            looked_at = votes, votes[:0]
        most = max(array.size for array in looked_at)
        found.verify(
            min(-(-most // BLOCK), self._most_blocks),
            *(number for array in looked_at for number in (array.address, array.size)),
            *(control, self._results.history.address),
        )
        changed.append(gradients)
        before.append(zeros((gradients.size,), np.float32, self._device))
        for array, copy in zip(changed, before, strict=True):
            if array.size:
                found.restore.over(array.size, copy.address, array.address, array.size, control)
        parameters.touch()

    def _optimize(
        self, found: OptimizerKernels, optimizer: AbstractOptimizer, gradients: DeviceArray
    ) -> None:
        parameters, (first, end) = self._parameters, self._division.own
        copy, control = parameters.copy.address, self._control.address
        summed, own, scalars = gradients.address, (), found.scalars.address
        if self._over_ranks is not None:
            summed, own = self._over_ranks.summed, (first, self._over_ranks.cleared(gradients))
        state, matrices = address_before(self.state, first), self.matrices.address
        arrays = parameters.address_for(first, end), summed, state, scalars
        if optimizer.n_matrix_state:
            sums, n_matrices = self._matrix_sums.address, self._n_matrices
            found.summands((int(kernels.SUM_LANES) // BLOCK, n_matrices), *arrays, sums, control)
            found.matrix_step(n_matrices, sums, matrices, scalars, control)
        if self._preconditions:
            self._precondition(optimizer, found.scalars)
        n_threads = (end - first) // found.group_size
        found.optimize.over(n_threads, *arrays, matrices, copy, control, end, *own)
        parameters.finish_step()
