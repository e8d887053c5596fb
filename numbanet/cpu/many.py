"""Many models of one shape on the CPU: steps and inference of all in one launch each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from numbanet.cpu.engine import NO_MATRIX, OPTIMIZER_CHUNK
from numbanet.cpu.many_kernels import (
    LEFT,
    STEPPED,
    many_inference_kernel,
    many_optimizer_kernel,
    many_training_kernel,
)
from numbanet.cpu.target import LARGE, CpuParameters, CpuTraining
from numbanet.cpu.training_plan import TrainingPlan
from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch
from numbanet.losses.base import AbstractLoss
from numbanet.many_training import AbstractMany, ManyResult
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.quantization import Quantized, quantize

NO_SAMPLES = NO_MATRIX[None]
LARGE_BITS = np.float32(LARGE).view(np.int32)


@dataclass(frozen=True)
class KnownResult(ManyResult):
    """Losses and flags of a step, known at once."""

    losses: np.ndarray
    are_stepped: np.ndarray

    is_known = True

    def read(self):
        return self.losses, self.are_stepped


class CpuMany(AbstractMany):
    """Arrays of all models, and a training for each, which has its rows of them."""

    def __init__(
        self, model: EncodedNetwork, params: np.ndarray, optimizers: Sequence[AbstractOptimizer],
        layout: ParamLayout, quantized: tuple[Quantized, ...] = (),
    ):  # fmt: skip
        self._model, self._layout, self._quantized = model, layout, quantized
        self._key, self._numbers = model.kernel_key(), np.array(model.encoding.numbers, np.int64)
        self._params, self.gradients = params, np.zeros_like(params)
        self.trainings = [
            CpuTraining(None, CpuParameters(own), each, layout)
            for own, each in zip(params, optimizers, strict=True)
        ]
        self.state, self.matrices = self._stacked("state"), self._stacked("matrices")
        self._latest = None
        self._scalars = np.empty((len(params), max(optimizers[0].n_scalars, 1)), np.float32)

    def _stacked(self, name: str) -> np.ndarray:
        """Stack an array of all trainings, which become views of its rows."""
        stacked = np.stack([getattr(each, name) for each in self.trainings])
        for own, each in zip(stacked, self.trainings, strict=True):
            setattr(each, name, own)
        return stacked

    @property
    def params(self) -> np.ndarray:
        """Parameters that are trained."""
        return self._params

    def set_params(self, values):
        self._params[...] = values
        for each in self.trainings:
            each.take_weights()

    @property
    def n_steps(self):
        return np.array([each.n_steps for each in self.trainings])

    @property
    def n_skipped_steps(self):
        return np.array([each.n_skipped_steps for each in self.trainings])

    def tensors(self, k):
        training = self.trainings[k]
        own = {
            f"optimizer.{name}": getattr(training, name)
            for name in ("state", "matrices", "statistics")
        }
        return {"params": self._params[k], **own}

    def _as_read(self, params: np.ndarray) -> np.ndarray:
        """Parameters of all models as kernels read them."""
        if not self._quantized:
            return params
        return np.stack([quantize(own, self._quantized) for own in params])

    def inference(self, xs, optimizers):
        shape = len(self._params), xs.shape[1], self._model.network.n_output_dims
        ys, params = np.empty(shape, np.float32), self._params
        row = optimizers[0].inference_row
        if row is not None:
            pairs = zip(self.trainings, optimizers, strict=True)
            is_begun = np.array([training.is_begun(optimizer) for training, optimizer in pairs])
            params = np.where(is_begun[:, None], self.state[:, row], params)
        many_inference_kernel(self._key)(xs, self._as_read(params), self._numbers, ys, NO_MATRIX)
        return ys

    def step(
        self, batch: Batch, loss: AbstractLoss, optimizers: Sequence[AbstractOptimizer]
    ) -> "KnownResult":
        losses = self._pass(batch, loss)
        means = losses.sum(axis=1) / max(batch.inputs.shape[1] * batch.targets.shape[2], 1)
        if batch.inputs.shape[1] == 0:
            return KnownResult(means, np.ones(len(losses), bool))
        begins = optimizers[0].n_calls_to_begin
        for each in self.trainings:
            each.check_count(each.n_steps)
            if each.n_steps + 1 == begins:
                each.take_weights()
        outcomes = self._optimize(batch.inputs, losses, optimizers)
        for k in np.flatnonzero(outcomes == LEFT):
            if self.trainings[k].optimize(optimizers[k], self.gradients[k]):
                outcomes[k] = STEPPED
            else:
                self.gradients[k] = 0
        is_stepped = outcomes == STEPPED
        for each, stepped in zip(self.trainings, is_stepped, strict=True):
            each.n_steps += int(stepped)
            each.n_skipped_steps += int(not stepped)
        return KnownResult(means, is_stepped)

    def _pass(self, batch: Batch, loss: AbstractLoss) -> np.ndarray:
        """Overwrite the gradients; returns the sums of the losses, [n_models, n_groups]."""
        plan = TrainingPlan(self._key, loss, has_pdf=batch.pdf is not None)
        n, n_outputs = batch.inputs.shape[1], batch.targets.shape[2]
        group_rows = plan.group_rows(n, self._model.n_params)
        losses = np.zeros((len(self._params), -(-min(n, plan.slab_rows) // group_rows)))
        many_training_kernel(plan)(
            *(batch.inputs, batch.targets, NO_SAMPLES if batch.pdf is None else batch.pdf),
            *(NO_MATRIX, self._as_read(self._params), self._numbers, group_rows),
            *(np.float32(1.0 / max(n * n_outputs, 1)), self.gradients, losses),
        )
        return losses

    def _optimize(
        self, xs: np.ndarray, losses: np.ndarray, optimizers: Sequence[AbstractOptimizer]
    ) -> np.ndarray:
        first, outcomes = optimizers[0], np.empty(len(losses), np.int64)
        if optimizers is not self._latest:
            in_kernel = not first.preconditions(self._layout)
            self._in_kernel = np.array([in_kernel and each.is_tame for each in optimizers])
            self._hyperparams = np.array([each.hyperparams() for each in optimizers], np.float32)
            self._latest = optimizers
        ts = np.array([each.n_steps + 1 for each in self.trainings], np.int32) * self._in_kernel
        many_optimizer_kernel(first.kernel_key(), self._layout)(
            *(xs, losses, LARGE_BITS, ts, self._params, self.gradients),
            *(
                self.state,
                self.matrices,
                self._hyperparams,
                self._scalars,
                OPTIMIZER_CHUNK,
                outcomes,
            ),
        )
        return outcomes
