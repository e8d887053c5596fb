"""Deprecated methods of Trainer, which models have now."""

import os
from collections.abc import Mapping
from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.renamed import renamed, warn_renamed
from numbanet.training_file import load_training, save_training


class OldTrainerNames:
    """Deprecated names of Trainer."""

    __slots__ = ()

    model = renamed("Trainer.model", "Trainer.network", lambda trainer: trainer.network)
    params = renamed(
        "Trainer.params", "Trainer.network.params", lambda trainer: trainer.network.params
    )

    def input_gradient(self: Any, dim: int, inputs: ArrayLike) -> Array:
        """Deprecated: use `model.input_gradient(dim, inputs)`."""
        warn_renamed("Trainer.input_gradient", "model.input_gradient")
        return self.network.input_gradient(dim, inputs, self.averaged_params)

    def save(
        self: Any, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Deprecated: use `model.save(path, metadata)`."""
        warn_renamed("Trainer.save", "model.save")
        save_training(self, path, metadata)

    def load(
        self: Any, path: str | os.PathLike[str], *, allow_nonfinite: bool = False
    ) -> dict[str, Any]:
        """Deprecated: use `model.load(path)`, or `numbanet.load(path)` for a new model."""
        warn_renamed("Trainer.load", "model.load")
        return load_training(self, path, allow_nonfinite=allow_nonfinite)
