"""Interface of targets for many models of one shape, trained side by side."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from numbanet.array_types import Array
from numbanet.engine import Batch
from numbanet.losses.base import AbstractLoss
from numbanet.optimizers.base import AbstractOptimizer


class ManyResult(Protocol):
    """Losses of a training step of many models, perhaps under way."""

    is_known: bool

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Losses, float64 [n_models], and which models were stepped; waits for these."""


class AbstractMany(ABC):
    """Many models of one shape, each with an optimizer's state of its own.

    Samples are [1, n, ...] for all models, or [n_models, n, ...]. The optimizers of the models
    differ in their hyperparams alone.
    """

    n_steps: np.ndarray  # that each model's optimizer made
    n_skipped_steps: np.ndarray

    @property
    @abstractmethod
    def params(self) -> Any:
        """Parameters, float32 [n_models, n_params]; on a GPU a copy."""

    @abstractmethod
    def set_params(self, values: np.ndarray) -> None:
        """Overwrite all parameters."""

    @abstractmethod
    def tensors(self, k: int) -> dict[str, np.ndarray]:
        """Tensors of a snapshot of model k."""

    @abstractmethod
    def step(
        self, batch: Batch, loss: AbstractLoss, optimizers: Sequence[AbstractOptimizer]
    ) -> ManyResult:
        """Step all models; one whose numbers are not finite skips its own."""

    @abstractmethod
    def inference(self, xs: Any, optimizers: Sequence[AbstractOptimizer]) -> Array:
        """Outputs [n_models, n, n_output_dims], with the parameters for inference."""
