"""Optimizer steps of many models, each of which counts its own."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from numbanet.cuda.many.device import ManyDevice
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.optimizer import kernels
from numbanet.cuda.optimizer.matrices import Operations
from numbanet.cuda.optimizer.training import FLOAT_BYTES, CudaTraining
from numbanet.optimizers.base import AbstractOptimizer

COUNTER_BYTES = 4


class ManyTraining(CudaTraining):
    """Training on a ManyDevice: decisions of the host that depend on a model are made for each.

    The optimizers differ in their hyperparams alone.
    """

    _device: ManyDevice
    _fewest_known = 0  # steps of the model that made fewest, when they were last counted

    @property
    def _most_blocks(self) -> int:
        return max(kernels.MOST_BLOCKS // self._device.n_models, 1)

    def set_optimizers(self, optimizers: Sequence[AbstractOptimizer]) -> AbstractOptimizer:
        """Set the hyperparams of each model from the next step on; returns the common optimizer.

        Where one is not tame, that is none either.
        """
        bold = (each for each in optimizers if not each.is_tame)
        of_all = next(bold, optimizers[0])
        found, _ = self._kernels_of(of_all)
        values = np.array([each.hyperparams() for each in optimizers], np.float32)
        self._device.write(found.hyperparams.address, values)
        return of_all

    @property
    def history(self) -> DeviceArray:
        """Results of the last steps; see `kernels`."""
        return self._results.history

    def counters(self, k: int) -> np.ndarray:
        """Values of a counter in `control`, one for each model; waits for the device."""
        address = self._control.address + COUNTER_BYTES * int(k)
        return self._device.read(address, (1,), np.uint32)[:, 0].astype(np.int64)

    @property
    def n_steps(self) -> int:
        """Steps of the model that made most; reading it waits for the device."""
        counts = self.counters(kernels.N_STEPS)
        self._fewest_known, self._n_known, self._n_asked = counts.min(), counts.max(), 0
        return int(self._n_known)

    def are_begun(self, optimizer: AbstractOptimizer) -> np.ndarray:
        """is_begun for each model; waits for the device."""
        return self.counters(kernels.N_STEPS) >= optimizer.n_calls_to_begin

    def _prepare_to_begin(self, optimizer):
        n = optimizer.n_calls_to_begin
        if not self._fewest_known < n <= self._n_known + self._n_asked + 1:
            return
        if self.n_steps + 1 >= n:
            for k in np.flatnonzero(self.counters(kernels.N_STEPS) + 1 == n):
                self._take_weights_of(int(k))

    def _take_weights_of(self, k: int) -> None:
        device, n = self._device, self.state.shape[1]
        state = device.array_of(self.state, k).address
        master = device.array_of(self._parameters.master, k).address
        for row, first, last in self._weight_rows:
            to = state + (row * n + first) * FLOAT_BYTES
            device.below.copy(to, master + first * FLOAT_BYTES, (last - first) * FLOAT_BYTES)

    @cached_property
    def _operations(self) -> Operations:
        return Operations(self._device.below)

    def _precondition(self, optimizer: AbstractOptimizer, scalars: DeviceArray) -> None:
        """Precondition one model after the other: the work depends on each model's numbers."""
        arrays = self.state, self.matrices, self.statistics, scalars
        for k in np.flatnonzero(self.counters(kernels.RUNS)):
            own = (self._device.array_of(array, int(k)) for array in arrays)
            optimizer.precondition(self._operations, self._layout, *own)
