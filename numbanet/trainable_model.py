"""Model with its trainer, as create_from_config makes it and a snapshot holds it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numbanet.array_types import Array, ArrayLike
from numbanet.derivatives import Derivatives
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.renamed import renamed
from numbanet.summary import Summary, summary_of
from numbanet.trainer import Trainer
from numbanet.training_file import load_training, save_training


@dataclass(frozen=True, repr=False)
class TrainableModel:
    """Network with its trainer, and the metadata of its snapshot.

    Calling it evaluates it, `trainer` trains it, `network` has its parameters and its passes.
    """

    network: NetworkWithInputEncoding
    trainer: Trainer
    metadata: dict[str, Any] = field(default_factory=dict)

    loss = renamed("TrainableModel.loss", "model.trainer.loss", lambda model: model.trainer.loss)
    optimizer = renamed(
        "TrainableModel.optimizer",
        "model.trainer.optimizer",
        lambda model: model.trainer.optimizer,
    )

    def __call__(
        self, inputs: ArrayLike, out: Array | None = None, max_level: ArrayLike | None = None
    ) -> Array:
        """Evaluate the model with its parameters for inference.

        Args:
            inputs: [n, n_input_dims], any batch size.
            out: a float32 array [n, n_output_dims], of the model's device, that receives the
                outputs and is returned; nothing is allocated then.
            max_level: see Trainer.training_step.

        Returns:
            The outputs, float32 [n, n_output_dims].

        Raises:
            TypeError, ValueError: the arrays do not fit, or `out` shares memory with an input.
        """
        return self.network(inputs, self.trainer.averaged_params, out, max_level)

    def input_gradient(
        self, dim: int, inputs: ArrayLike, max_level: ArrayLike | None = None
    ) -> Array:
        """Derivative of output `dim` by the inputs, at the parameters for inference.

        Returns:
            float32 [n, n_input_dims].

        Raises:
            TypeError, ValueError: the inputs do not fit, or there is no such output.
        """
        return self.network.input_gradient(dim, inputs, self.trainer.averaged_params, max_level)

    def derivatives(
        self, inputs: ArrayLike, order: int = 2, *, wanted: str | None = None
    ) -> Derivatives:
        """Outputs with their derivatives by the inputs, at the trained parameters.

        See Network.derivatives: arguments, what is returned and errors are its.
        `trainer.optimizer_step()` makes a step with the gradient that its `backward` writes.
        """
        return self.network.derivatives(inputs, order, wanted=wanted)

    def save(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any] | None = None,
        *,
        for_inference: bool = False,
    ) -> None:
        """Write a snapshot (safetensors): parameters, optimizer state, config and `metadata`.

        Of several ranks all call it, rank 0 writes, and then the file is there for all.

        Args:
            path: replaced as a whole if it exists. A link stays a link, and its target is
                replaced; owner and mode stay.
            metadata: anything that JSON holds; `numbanet.load` gives it back.
            for_inference: write the parameters for inference alone, tables with `compression` in
                its bits; training can go on from there, with an optimizer that begins.

        Raises:
            OSError: the file cannot be written, or is no regular one; what was there before is
                still there.
            TypeError: the metadata is no JSON.
            ValueError: the metadata has more than 16 MiB.
        """
        save_training(self.trainer, path, metadata, for_inference)

    def load(
        self, path: str | os.PathLike[str], *, allow_nonfinite: bool = False
    ) -> dict[str, Any]:
        """Continue from a snapshot of a model of the same config; returns its metadata.

        The options of the optimizer and the loss become those of the snapshot. `numbanet.load`
        makes a new model of a snapshot instead.

        Args:
            allow_nonfinite: take numbers that are infinite or NaN, and an optimizer's state of
                which training may make such.

        Raises:
            SnapshotError: damaged, no snapshot, or of another model; nothing changed then.
            OSError: the file cannot be read.
        """
        return load_training(self.trainer, path, allow_nonfinite=allow_nonfinite)

    def summary(self) -> Summary:
        """Summary of the model, and of the kernels that serve it; see numbanet.summary."""
        return summary_of(self.network, self.trainer)

    def __repr__(self) -> str:
        return self.summary().heading()

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()
