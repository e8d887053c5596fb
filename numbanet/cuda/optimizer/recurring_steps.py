"""Training steps that recur: replayed as CUDA graphs."""

from collections.abc import Callable
from typing import Any, NamedTuple

from numbanet.cuda.driver.graphs import MOST, Graphs, Recurring
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.inputs import FLOAT
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.engine import Batch
from numbanet.losses.base import AbstractLoss


class UsualStep(NamedTuple):
    """Captured step of inputs and targets alone, and what must not have changed since."""

    work: Recurring
    kernels: OptimizerKernels
    loss: AbstractLoss
    engine: Any
    generation: int  # of the engine's memory
    address: int  # of the master values


class RecurringSteps:
    """Graphs of one training's steps; usual ones are found by their arrays alone."""

    def __init__(self, device: Any):
        self._device = device
        self._graphs = Graphs(device)
        self._losses = {}  # losses that were computed, and their numbers
        self._latest_loss = None, 0
        self._usual = {}

    def _number_of(self, loss: AbstractLoss | None) -> int:
        """Number of a loss, equal for equal losses: a cheap part of the keys of graphs."""
        latest, number = self._latest_loss
        if loss is not latest:
            number = self._losses.setdefault(loss, len(self._losses))
            self._latest_loss = loss, number
        return number

    def run(self, queue: Callable[..., None], work: tuple, parameters: Any, engine: Any) -> None:
        """Queue a step.

        Args:
            work: the arguments of `queue`, see CudaTraining.step.
            parameters, engine: of the training.
        """
        found, (batch, params, loss, gradients, dl_dinput), _, overwrite, run_optimizer = work
        inputs, targets, pdf, dl_dy = (
            batch.inputs, batch.targets, batch.pdf, batch.external_dl_dy,
        )  # fmt: skip
        key = (
            *(found, self._number_of(loss), overwrite, run_optimizer),
            *(gradients is None, inputs.shape, inputs.address, params.address),
            0 if targets is None else targets.address,
            0 if pdf is None else pdf.address,
            0 if dl_dy is None else dl_dy.address,
            0 if dl_dinput is None else dl_dinput.address,
            *(batch.n_rows, batch.is_nominal, parameters.address),
            engine.generation,
        )
        recurring = self._graphs.run(key, queue, *work)
        if (
            recurring.graph is not None
            and (overwrite, run_optimizer, batch.has_levels) == (True, True, False)
            and pdf is dl_dy is dl_dinput is batch.noise is None
            and targets is not None
            and params is parameters.copy
        ):
            state = engine.generation, parameters.address
            self._remember(batch, UsualStep(recurring, found, loss, engine, *state))

    def _remember(self, batch: Batch, step: UsualStep) -> None:
        if len(self._usual) >= 2 * MOST:
            self._usual.clear()
        inputs, targets = batch.inputs, batch.targets
        self._usual[inputs.address, inputs.shape, targets.address, targets.shape] = step

    def usual(
        self, inputs: Any, targets: Any, loss: AbstractLoss, engine: Any, parameters: Any
    ) -> UsualStep | None:
        """Captured step of arrays that were checked before; None if there is none."""
        for array in (inputs, targets):
            is_own = type(array) is DeviceArray and array.device is self._device
            if not (is_own and array.dtype is FLOAT):
                return None
        found = self._usual.get((inputs.address, inputs.shape, targets.address, targets.shape))
        if found is None:
            return None
        work, _, its_loss, its_engine, generation, address = found
        is_valid = work.graph is not None and its_loss is loss and its_engine is engine
        is_valid = is_valid and engine.generation == generation and parameters.address == address
        return found if is_valid else None

    def replay(self, step: UsualStep) -> None:
        """Queue a captured step."""
        self._graphs.replay(step.work)
