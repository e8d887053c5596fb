"""The trainer: a model, a loss and an optimizer, and the steps that join them."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.caller import warn_caller
from numbanet.engine import Batch
from numbanet.grid_range import GridRange
from numbanet.losses.base import AbstractLoss
from numbanet.model import NetworkWithInputEncoding, check_gradient_mode
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.registry import ConfigError
from numbanet.saved_training import (
    SavedTraining,
    config_of,
    open_saved_training,
    tensor_shapes,
)
from numbanet.shown import joined, shown
from numbanet.snapshot import SnapshotError, write_snapshot
from numbanet.target import AbstractTraining
from numbanet.unknown_options import UnknownOptions

SKIPPED = "the inputs, the loss or a gradient are infinite or NaN; the step was skipped"


class Loss:
    """The loss of a training step, read when it is asked for: `float(loss)`.

    On a GPU that is when the host waits for the step, and learns whether it was skipped.
    """

    def __init__(self, result: Any, grid_range: GridRange, warns: bool):
        self._result, self._grid_range, self._warns = result, grid_range, warns

    def __float__(self) -> float:
        result = self._result.read()
        self._grid_range.check()
        if result.skipped and self._warns:
            self._warns = False
            warn_caller(SKIPPED, RuntimeWarning)
        return result.loss

    def item(self) -> float:
        """The value, as `float(loss)`."""
        return float(self)

    def __format__(self, specification: str) -> str:
        return format(float(self), specification)

    def __repr__(self) -> str:
        return f"Loss({float(self):g})"


class Trainer:
    """Trains a model.

    Args:
        model: what to train; the trainer works on its parameters in place.
        optimizer: the optimizer component.
        loss: the loss component.
        on_nonfinite: what a step of the optimizer does if its inputs, loss or gradients are
            infinite or NaN: "skip" leaves the parameters as they are, zeroes the gradients, counts
            it in n_skipped_steps and warns (on a GPU when the loss is read); "raise" raises
            FloatingPointError, for which every step on a GPU is waited for.

    Raises:
        ConfigError: the loss cannot take so many outputs, or the optimizer does not fit the model's
            parameters.
    """

    def __init__(
        self,
        model: NetworkWithInputEncoding,
        optimizer: AbstractOptimizer,
        loss: AbstractLoss,
        *,
        on_nonfinite: str = "skip",
    ):
        if on_nonfinite not in ("skip", "raise"):
            raise ValueError(f"on_nonfinite: {shown(on_nonfinite)}; use 'skip' or 'raise'")
        loss.row(model.n_output_dims, False)  # raises if the loss cannot take so many outputs
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.on_nonfinite = on_nonfinite
        self.layout = ParamLayout(model.n_params, model.network.shapes)
        self._grid_range = GridRange(model.encoding, model.target)
        self._own_training = model.target.training(
            model.engine, model.parameters, optimizer, self.layout
        )

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, {self.optimizer}, {self.loss}, n_steps={self.n_steps})"

    def __reduce__(self):
        """Pickled is what a snapshot holds, with the model."""
        saved = SavedTraining(
            self.model.encoding, self.model.network, self.loss, self.optimizer,
            self.n_steps, self.n_skipped_steps, {},
        )  # fmt: skip
        to_host = self.model.target.to_host
        tensors = {name: to_host(array) for name, array in self._tensors().items()}
        return restored, (type(self), self.model, saved, tensors, self.on_nonfinite)

    @property
    def _training(self) -> AbstractTraining:
        self._own_training.follow()
        return self._own_training

    @property
    def n_steps(self) -> int:
        """Steps of the optimizer that were made; a GPU is waited for."""
        return self._training.n_steps

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._training.n_steps = check_count("n_steps", value)
        if value:
            self._grid_range.close()

    @property
    def n_skipped_steps(self) -> int:
        """Steps that were skipped, see on_nonfinite; a GPU is waited for."""
        return self._training.n_skipped_steps

    @n_skipped_steps.setter
    def n_skipped_steps(self, value: int) -> None:
        self._training.n_skipped_steps = check_count("n_skipped_steps", value)

    @property
    def params(self) -> Any:
        """The parameters that are trained."""
        return self.model.params

    @property
    def inference_params(self) -> Any:
        """The parameters for inference; some optimizers keep an average for it."""
        own = self._params_for_inference()
        return self.model.params if own is None else own

    def _params_for_inference(self) -> Any:
        """As inference_params; None for the model's own."""
        row = self.optimizer.inference_row
        if row is None:
            return None
        training = self._training
        return training.state[row] if training.is_begun(self.optimizer) else None

    @property
    def optimizer_state(self) -> Any:
        """The optimizer's state, float32 [n_state, n_params]."""
        return self._training.state

    @property
    def learning_rate(self) -> float:
        """The learning rate; setting it compiles nothing."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.update_hyperparams({"optimizer": self.optimizer.learning_rate_options(value)})

    def training_step(
        self,
        inputs,
        targets,
        pdf=None,
        run_optimizer: bool = True,
        dl_dinput: Any = None,
        external_dl_dy=None,
        gradient_mode: str = "overwrite",
        use_inference_params: bool = False,
    ) -> Loss:
        """Evaluate the loss of a batch, its gradients, and make a step of the optimizer.

        Args:
            inputs: [n, n_input_dims], any batch size. Grids cover [0, 1]: a warning says if most
                inputs of the first step lie outside (on a GPU when a loss is read).
            targets: [n, n_output_dims]; may be None if external_dl_dy is given.
            pdf: the density with which each target was sampled, [n, n_output_dims].
            run_optimizer: False to leave the parameters as they are.
            dl_dinput: a float32 array [n, n_input_dims], of the model's device, that receives the
                gradient of the inputs.
            external_dl_dy: this gradient of the outputs, [n, n_output_dims], replaces the loss's.
            gradient_mode: "overwrite" or "accumulate" the parameters' gradients, or "ignore" them,
                in which case the optimizer does not run.
            use_inference_params: differentiate at the parameters for inference.

        Returns:
            The loss: the mean over the batch and the output dimensions.

        Raises:
            TypeError, ValueError: an argument does not fit; nothing has changed then.
            FloatingPointError: the loss or a gradient is not finite and on_nonfinite is "raise".
        """
        model, target = self.model, self.model.target
        inputs = target.matrix(inputs, "inputs", model.n_input_dims)
        n, n_outputs = inputs.shape[0], model.n_output_dims
        if targets is None and external_dl_dy is None:
            raise ValueError("targets: None is allowed only if external_dl_dy is given")
        if targets is not None:
            targets = target.matrix(targets, "targets", n_outputs, n)
        if pdf is not None:
            pdf = target.matrix(pdf, "pdf", n_outputs, n)
        if external_dl_dy is not None:
            external_dl_dy = target.matrix(external_dl_dy, "external_dl_dy", n_outputs, n)
        check_gradient_mode(gradient_mode)
        if dl_dinput is not None:
            dl_dinput = target.output_apart(
                dl_dinput, "dl_dinput", inputs.shape,
                inputs=inputs, targets=targets, pdf=pdf, external_dl_dy=external_dl_dy,
            )  # fmt: skip
        gradients = None if gradient_mode == "ignore" else model.target_gradients
        own = self._params_for_inference() if use_inference_params else None
        self._grid_range.take(inputs)
        result = self._training.step(
            Batch(inputs, targets, pdf if targets is not None else None, external_dl_dy),
            model.parameters.current() if own is None else model.parameters.converted(own),
            None if targets is None else self.loss,
            self.optimizer,
            gradients,
            dl_dinput,
            overwrite=gradient_mode == "overwrite",
            run_optimizer=run_optimizer and gradients is not None and n > 0,
        )
        raises = self.on_nonfinite == "raise"
        is_known = raises or result.is_known
        if is_known:
            if result.read().skipped:
                if raises:
                    raise FloatingPointError(f"{SKIPPED}, the parameters are as they were")
                warn_caller(SKIPPED, RuntimeWarning)
            self._grid_range.check()
        return Loss(result, self._grid_range, warns=not is_known)

    def inference(self, inputs, out: Any = None) -> Any:
        """Evaluate the model with the parameters for inference, as its own `inference` does.

        Args:
            inputs: [n, n_input_dims], any batch size.
            out: a float32 array [n, n_output_dims], of the model's device, that receives the
                outputs and is returned; nothing is allocated then.

        Raises:
            TypeError, ValueError: the arrays do not fit, or `out` shares memory with what is read.
        """
        return self.model.inference(inputs, self._params_for_inference(), out)

    def input_gradient(self, dim: int, inputs) -> Any:
        """The derivative of output `dim` for the inputs, at the parameters for inference."""
        return self.model.input_gradient(dim, inputs, self._params_for_inference())

    def update_hyperparams(self, config: Mapping[str, Any]) -> None:
        """Change options of the optimizer or the loss, for example
        {"optimizer": {"learning_rate": 1e-3}}; what is not named stays.

        Raises:
            ConfigError: an option does not exist or its value is not allowed; nothing changed then.
        """
        if not isinstance(config, Mapping):
            raise ConfigError(f"expected a JSON object, got {shown(config)}")
        changed = {}
        for section, options in config.items():
            if section not in ("optimizer", "loss"):
                raise ConfigError(
                    f"{joined('', section)}: cannot be changed; use 'optimizer' or 'loss'"
                )
            changed[section] = updated(getattr(self, section), options, section)
        optimizer = changed.get("optimizer", self.optimizer)
        if meaning_of_state(optimizer, self.layout) != self._meaning_of_state():
            raise ConfigError(
                "optimizer: an option that changes the state's size or meaning cannot change"
            )
        self.optimizer = optimizer
        self.loss = changed.get("loss", self.loss)

    def config(self) -> dict[str, Any]:
        """The JSON config of everything, with every option written out."""
        return config_of(self.model.encoding, self.model.network, self.loss, self.optimizer)

    def _meaning_of_state(self) -> tuple:
        return meaning_of_state(self.optimizer, self.layout)

    def _tensors(self) -> dict[str, Any]:
        """What a snapshot holds, always in the same order."""
        _, *others = tensor_shapes(self.optimizer, self.layout)
        own = {name: getattr(self._training, name.removeprefix("optimizer.")) for name in others}
        return {"params": self.params, **own}

    def save(self, path: str | os.PathLike, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a snapshot (safetensors): parameters, optimizer state, config and `metadata`.

        Args:
            path: replaced as a whole if it exists. A link stays a link, and its target is
                replaced; owner and mode stay.
            metadata: anything that JSON holds; `numbanet.load` gives it back.

        Raises:
            OSError: the file cannot be written, or is no regular one; what was there before is
                still there.
            TypeError: the metadata is no JSON.
            ValueError: the metadata has more than 16 MiB.
        """
        if not isinstance(metadata, Mapping | None):
            raise TypeError(f"metadata: expected a dict, got {shown(metadata)}")
        header = {
            "n_input_dims": self.model.n_input_dims,
            "n_output_dims": self.model.n_output_dims,
            "config": self.config(),
            "n_steps": self.n_steps,
            "n_skipped_steps": self.n_skipped_steps,
            "metadata": dict(metadata or {}),
        }
        to_host = self.model.target.to_host
        tensors = {name: to_host(array) for name, array in self._tensors().items()}
        write_snapshot(path, tensors, header)

    def load(self, path: str | os.PathLike, *, allow_nonfinite: bool = False) -> dict[str, Any]:
        """Continue from a snapshot of a model of the same config; returns its metadata.

        The options of the optimizer and the loss become those of the snapshot.

        Args:
            allow_nonfinite: take numbers that are infinite or NaN, and an optimizer's state of
                which training may make such.

        Raises:
            SnapshotError: damaged, no snapshot, or of another model; nothing changed then.
            OSError: the file cannot be read.
        """
        with open_saved_training(path) as (saved, file):
            self._check_same(file.name, saved)
            tensors = file.tensors(saved.tensor_shapes)
            saved.check_numbers(file.name, tensors, allow_nonfinite)
        self.restore(saved, tensors)
        return saved.metadata

    def _check_same(self, name: str, saved: SavedTraining) -> None:
        """Raise SnapshotError unless a snapshot is of this model, and of such an optimizer."""
        theirs = config_of(saved.encoding, saved.network, saved.loss, saved.optimizer)
        mine = self.config()
        pairs = {
            "n_input_dims": (saved.encoding.n_dims, self.model.n_input_dims),
            "n_output_dims": (saved.network.n_output_dims, self.model.n_output_dims),
            "the encoding": (theirs["encoding"], mine["encoding"]),
            "the network": (theirs["network"], mine["network"]),
            "the optimizer": (saved.optimizer.structure, self.optimizer.structure),
        }
        for what, (found, expected) in pairs.items():
            if found != expected:
                raise SnapshotError(
                    f"{name}: {what} is {found!s:.200}, and the trainer's is {expected!s:.200}"
                )
        if meaning_of_state(saved.optimizer, self.layout) != self._meaning_of_state():
            raise SnapshotError(
                f"{name}: the optimizer's options ask for another state than the trainer's has: "
                f"{saved.tensor_shapes}"
            )

    def restore(self, saved: SavedTraining, tensors: Mapping[str, np.ndarray]) -> None:
        """Take everything from a snapshot that was found to be of this model."""
        for name, array in self._tensors().items():
            self.model.target.copy_from_host(array, tensors[name])
        self.optimizer, self.loss = saved.optimizer, saved.loss
        self.n_steps, self.n_skipped_steps = saved.n_steps, saved.n_skipped_steps


def restored(kind: type, model, saved: SavedTraining, tensors, on_nonfinite: str) -> Trainer:
    """The trainer that was pickled, of a model that was."""
    trainer = kind(model, saved.optimizer, saved.loss, on_nonfinite=on_nonfinite)
    trainer.restore(saved, tensors)
    return trainer


def meaning_of_state(optimizer: AbstractOptimizer, layout: ParamLayout) -> tuple:
    """What is equal for optimizers that can take over each other's state.

    Raises:
        ConfigError: the optimizer does not fit the layout.
    """
    shapes, ranges = optimizer.state_shapes(layout), optimizer.matrix_ranges(layout)
    return optimizer.structure, shapes, ranges, optimizer.inference_row


def check_count(name: str, value: Any) -> int:
    """The value as an int, if steps can be counted on from there; else a ValueError."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and 0 <= value <= MOST_STEPS):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use an integer to {MOST_STEPS}")
    return int(value)


def updated(component, options: Mapping[str, Any], path: str):
    """The component with some options changed, through the same checks as a config."""
    if not isinstance(options, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(options)}")
    config = registry.merged(registry.to_config(component), options)
    derived = {
        field.name: getattr(component, field.name)
        for field in dataclasses.fields(component)
        if field.metadata.get("derived")
    }
    with UnknownOptions(warns=False) as unknown:
        changed = registry.create(path, config, default=component.otype, path=path, **derived)
    if unknown.messages:
        raise ConfigError(unknown.messages[0])
    return changed
