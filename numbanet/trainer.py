"""The trainer: a model, a loss and an optimizer, and the steps that join them."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.losses.base import AbstractLoss
from numbanet.model import NetworkWithInputEncoding, check_gradient_mode
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.registry import ConfigError, UnknownOptionWarning
from numbanet.snapshot import SnapshotError, read_snapshot, write_snapshot
from numbanet.target import Batch

SECTIONS = ("loss", "optimizer", "encoding", "network")


SKIPPED = "the inputs, the loss or a gradient are infinite or NaN; the step was skipped"


class Loss:
    """The loss of a training step, read when it is asked for: `float(loss)`.

    On a GPU that is when the host waits for the step, and learns whether it was skipped.
    """

    def __init__(self, result: Any):
        self._result = result
        self._warns = not result.is_known

    def __float__(self) -> float:
        result = self._result.read()
        if result.skipped and self._warns:
            self._warns = False
            warnings.warn(SKIPPED, RuntimeWarning, stacklevel=2)
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
            raise ValueError(f"on_nonfinite: {on_nonfinite!r}; use 'skip' or 'raise'")
        loss.row(model.n_output_dims, False)  # raises if the loss cannot take so many outputs
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.on_nonfinite = on_nonfinite
        self.layout = ParamLayout(model.n_params, model.network.shapes)
        self._training = model.target.training(
            model.engine, model.parameters, optimizer, self.layout
        )

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, {self.optimizer}, {self.loss}, n_steps={self.n_steps})"

    @property
    def n_steps(self) -> int:
        """Steps of the optimizer that were made; a GPU is waited for."""
        return self._training.n_steps

    @n_steps.setter
    def n_steps(self, value: int) -> None:
        self._training.n_steps = value

    @property
    def n_skipped_steps(self) -> int:
        """Steps that were skipped, see on_nonfinite; a GPU is waited for."""
        return self._training.n_skipped_steps

    @n_skipped_steps.setter
    def n_skipped_steps(self, value: int) -> None:
        self._training.n_skipped_steps = value

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
        return None if row is None or self._training.is_fresh else self._training.state[row]

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
            inputs: [n, n_input_dims], any batch size.
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
        n = inputs.shape[0]

        def of_outputs(value, name):
            return None if value is None else target.matrix(value, name, model.n_output_dims, n)

        if targets is None and external_dl_dy is None:
            raise ValueError("targets: None is allowed only if external_dl_dy is given")
        targets = of_outputs(targets, "targets")
        pdf = of_outputs(pdf, "pdf")
        external = of_outputs(external_dl_dy, "external_dl_dy")
        check_gradient_mode(gradient_mode)
        if dl_dinput is not None:
            dl_dinput = target.output(dl_dinput, "dl_dinput", inputs.shape)
            given = {"inputs": inputs, "targets": targets, "pdf": pdf, "external_dl_dy": external}
            for name, array in given.items():
                if array is not None and target.overlap(dl_dinput, array):
                    raise ValueError(f"dl_dinput: shares memory with {name}; use another array")
        gradients = None if gradient_mode == "ignore" else model.target_gradients
        own = self._params_for_inference() if use_inference_params else None
        result = self._training.step(
            Batch(inputs, targets, pdf if targets is not None else None, external),
            model.parameters.current() if own is None else model.parameters.converted(own),
            self.loss,
            self.optimizer,
            gradients,
            dl_dinput,
            overwrite=gradient_mode == "overwrite",
            run_optimizer=run_optimizer and gradients is not None and n > 0,
        )
        if self.on_nonfinite == "raise":
            if result.read().skipped:
                raise FloatingPointError(f"{SKIPPED}, the parameters are as they were")
        elif result.is_known and result.read().skipped:
            warnings.warn(SKIPPED, RuntimeWarning, stacklevel=2)
        return Loss(result)

    def inference(self, inputs) -> Any:
        """Evaluate the model with the parameters for inference."""
        return self.model.inference(inputs, self._params_for_inference())

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
            raise ConfigError(f"expected a JSON object, got {config!r:.80}")
        changed = {}
        for section, options in config.items():
            if section not in ("optimizer", "loss"):
                raise ConfigError(f"{section}: cannot be changed; use 'optimizer' or 'loss'")
            changed[section] = updated(getattr(self, section), options, section)
        optimizer = changed.get("optimizer", self.optimizer)
        if state_sizes(optimizer, self.layout) != state_sizes(self.optimizer, self.layout):
            raise ConfigError("optimizer: an option that changes the state's size cannot change")
        self.optimizer = optimizer
        self.loss = changed.get("loss", self.loss)

    def config(self) -> dict[str, Any]:
        """The JSON config of everything, with every option written out."""
        parts = (self.loss, self.optimizer, self.model.encoding, self.model.network)
        return dict(zip(SECTIONS, map(registry.to_config, parts), strict=True))

    def _tensors(self) -> dict[str, Any]:
        """What a snapshot holds besides the parameters."""
        training = self._training
        tensors = {"optimizer.state": training.state}
        for name in ("matrices", "statistics"):
            array = getattr(training, name)
            if array.size:
                tensors[f"optimizer.{name}"] = array
        return tensors

    def save(self, path: str | os.PathLike, metadata: Mapping[str, Any] | None = None) -> None:
        """Write a snapshot (safetensors): parameters, optimizer state, config and `metadata`.

        Args:
            path: replaced atomically if it exists.
            metadata: anything that JSON holds; `numbanet.load` gives it back.

        Raises:
            OSError: the file cannot be written; what was there before is still there.
            TypeError: the metadata is no JSON.
        """
        header = {
            "n_input_dims": self.model.n_input_dims,
            "n_output_dims": self.model.n_output_dims,
            "config": self.config(),
            "n_steps": self.n_steps,
            "n_skipped_steps": self.n_skipped_steps,
            "metadata": dict(metadata or {}),
        }
        tensors = {"params": self.params, **self._tensors()}
        to_host = self.model.target.to_host
        write_snapshot(path, {name: to_host(array) for name, array in tensors.items()}, header)

    def load(self, path: str | os.PathLike) -> dict[str, Any]:
        """Continue from a snapshot of a model of the same config; returns its metadata.

        The options of the optimizer and the loss become those of the snapshot.

        Raises:
            SnapshotError: damaged, no snapshot, or of another model; nothing changed then.
            OSError: the file cannot be read.
        """
        tensors, header = read_snapshot(path)
        mine = {"n_input_dims": self.model.n_input_dims, "n_output_dims": self.model.n_output_dims}
        mine |= {name: self.config()[name] for name in ("encoding", "network")}
        config = header.get("config")
        if not isinstance(config, Mapping):
            raise SnapshotError(f"{path}: the snapshot's header is damaged")
        theirs = {name: header.get(name) for name in ("n_input_dims", "n_output_dims")}
        theirs |= {name: config.get(name) for name in ("encoding", "network")}
        for name, value in mine.items():
            if theirs[name] != value:
                raise SnapshotError(f"{path}: {name} is {theirs[name]}, and the model's is {value}")
        try:
            optimizer = registry.create("optimizer", config["optimizer"], default="Adam")
            loss = registry.create("loss", config["loss"], default="RelativeL2")
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"{path}: the snapshot cannot be used ({error})") from error
        if type(optimizer) is not type(self.optimizer):
            raise SnapshotError(
                f"{path}: the optimizer is {optimizer.otype}, and the trainer's is "
                f"{self.optimizer.otype}"
            )
        self.restore(path, tensors, header)
        self.optimizer, self.loss = optimizer, loss
        return header["metadata"]

    def restore(self, path, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> None:
        """Take parameters, optimizer state and counters from what read_snapshot returned."""
        expected = {"params": self.params, **self._tensors()}
        for name, array in expected.items():
            found = tensors.get(name)
            if found is None or found.shape != array.shape or found.dtype != array.dtype:
                what = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
                raise SnapshotError(
                    f"{path}: tensor {name!r} is {what}, expected float32{list(array.shape)}"
                )
        counts = [header.get(name) for name in ("n_steps", "n_skipped_steps")]
        whole = all(type(count) is int and count >= 0 for count in counts)
        if not whole or not isinstance(header.get("metadata"), dict):
            raise SnapshotError(f"{path}: the snapshot's header is damaged")
        for name, array in expected.items():
            self.model.target.copy_from_host(array, tensors[name])
        self.n_steps, self.n_skipped_steps = counts


def state_sizes(optimizer: AbstractOptimizer, layout: ParamLayout) -> tuple:
    """What is equal for optimizers that can take over each other's state."""
    sizes = optimizer.n_state, optimizer.n_matrix_state, optimizer.inference_row
    return *sizes, optimizer.n_statistics(layout), optimizer.matrix_ranges(layout)


def updated(component, options: Mapping[str, Any], path: str):
    """The component with some options changed, through the same checks as a config."""
    if not isinstance(options, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {options!r}")
    config = registry.merged(registry.to_config(component), options)
    derived = {
        field.name: getattr(component, field.name)
        for field in dataclasses.fields(component)
        if field.metadata.get("derived")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownOptionWarning)
        try:
            return registry.create(path, config, default=component.otype, path=path, **derived)
        except UnknownOptionWarning as warning:
            raise ConfigError(str(warning)) from None
