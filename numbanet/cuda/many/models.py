"""Many models of one shape on a GPU, whose steps and inference are queued as those of one."""

from collections.abc import Sequence
from weakref import WeakSet

import numpy as np

from numbanet.cuda.engine import CudaEngine
from numbanet.cuda.many.device import ManyDevice
from numbanet.cuda.many.training import ManyTraining
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.parameters import CudaParameters
from numbanet.cuda.optimizer import kernels
from numbanet.cuda.optimizer.results import HISTORY
from numbanet.engine import Batch, Gradients
from numbanet.losses.base import AbstractLoss
from numbanet.many_training import AbstractMany, ManyResult
from numbanet.optimizers.base import AbstractOptimizer

RESULT = 2  # uint32 of the history: the bits of a loss, and whether the step was skipped


class CudaMany(AbstractMany):
    """Arrays of all models on a ManyDevice, and their engine and training.

    Args:
        params: [n_models, n_params].
        engine, parameters, gradients, training: of the ManyDevice.
    """

    def __init__(
        self, params: np.ndarray, optimizers: Sequence[AbstractOptimizer], engine: CudaEngine,
        parameters: CudaParameters, gradients: Gradients, training: ManyTraining,
    ):  # fmt: skip
        self._device: ManyDevice = training._device
        self._engine, self._parameters = engine, parameters
        self._gradients, self._training = gradients, training
        self._latest = self._of_all = None
        self._unread = WeakSet()  # results that are still in the history
        self.set_params(params)
        if training.state.size:
            states = [each.initial_state(own) for each, own in zip(optimizers, params, strict=True)]
            self._device.write(training.state.address, np.stack(states).astype(np.float32))

    @property
    def params(self) -> DeviceArray:
        """Copy of the parameters on the GPU."""
        master, below = self._parameters.master, self._device.below
        copy = empty((self._device.n_models, *master.shape), np.float32, below)
        self._device.collect(copy.address, master.address, master.nbytes)
        return copy

    def set_params(self, values):
        self._device.write(self._parameters.master.address, values)
        self._parameters.touch()
        self._training.take_weights()

    @property
    def n_steps(self):
        return self._training.counters(kernels.N_STEPS)

    @property
    def n_skipped_steps(self):
        return self._training.counters(kernels.N_SKIPPED)

    def tensors(self, k):
        training = self._training
        arrays = {
            "params": self._parameters.master,
            "optimizer.state": training.state,
            "optimizer.matrices": training.matrices,
            "optimizer.statistics": training.statistics,
        }
        return {name: self._device.array_of(each, k).numpy() for name, each in arrays.items()}

    def step(
        self, batch: Batch, loss: AbstractLoss, optimizers: Sequence[AbstractOptimizer]
    ) -> "PendingResults":
        device, training = self._device, self._training
        with device.lock:
            if optimizers is not self._latest:
                self._of_all, self._latest = training.set_optimizers(optimizers), optimizers
            pdf = None if batch.pdf is None else device.lend(batch.pdf)
            own = Batch(device.lend(batch.inputs), device.lend(batch.targets), pdf)
            result = training.step(
                own, self._parameters.current(), loss, self._of_all, self._gradients, None,
                overwrite=True, run_optimizer=len(own) > 0,
            )  # fmt: skip
            if result.place == HISTORY - 1:  # the next step takes the place of an earlier one
                for each in list(self._unread):
                    each.read()
            results = PendingResults(self, result.place)
            self._unread.add(results)
        return results

    def read(self, place: int) -> np.ndarray:
        """Results at a place of the history, uint32 [n_models, RESULT]; waits for the device."""
        history = self._training.history
        with self._device.lock:
            return self._device.read(history.address + 4 * RESULT * place, (RESULT,), np.uint32)

    def inference(self, xs, optimizers):
        device, n_outputs = self._device, self._engine.model.network.n_output_dims
        ys = empty((device.n_models, xs.shape[1], n_outputs), np.float32, device.below)
        with device.lock:
            params = self._params_for_inference(optimizers[0])
            self._engine.inference(device.lend(xs), params, device.lend(ys))
        return ys

    def _params_for_inference(self, optimizer: AbstractOptimizer) -> DeviceArray:
        row, training, device = optimizer.inference_row, self._training, self._device
        are_begun = np.zeros(1, bool) if row is None else training.are_begun(optimizer)
        if not are_begun.any():
            return self._parameters.current()
        master, averaged = self._parameters.master, training.state[row]
        if not are_begun.all():
            mixed = empty(master.shape, np.float32, device)
            device.copy(mixed.address, averaged.address, mixed.nbytes)
            for k in map(int, np.flatnonzero(~are_begun)):
                to, source = device.array_of(mixed, k), device.array_of(master, k)
                device.below.copy(to.address, source.address, to.nbytes)
            averaged = mixed
        return self._parameters.converted(averaged)


class PendingResults(ManyResult):
    """Losses and flags of a step, read from the device on demand."""

    is_known = False

    def __init__(self, many: CudaMany, place: int):
        self._many, self._place, self._values = many, place, None

    def read(self):
        if self._values is None:
            losses, skipped = self._many.read(self._place).T
            losses = np.ascontiguousarray(losses).view(np.float32)
            self._values = losses.astype(np.float64), skipped == 0
        return self._values
