"""The trainer: a model, a loss and an optimizer, and the steps that join them."""

import dataclasses
import math
import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.arrays import as_host_matrix
from numbanet.cpu.engine import all_finite, optimize
from numbanet.losses.base import AbstractLoss
from numbanet.model import NetworkWithInputEncoding, check_gradient_mode
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.registry import ConfigError, UnknownOptionWarning
from numbanet.snapshot import SnapshotError, read_snapshot, write_snapshot

SECTIONS = ("loss", "optimizer", "encoding", "network")


class Loss:
    """The loss of a training step, read when it is asked for: `float(loss)`."""

    def __init__(self, value: float):
        self._value = value

    def __float__(self) -> float:
        return self._value

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
        on_nonfinite: what a step does whose loss or gradients are infinite or NaN: "skip" leaves
            the parameters as they are, zeroes the gradients, counts it in n_skipped_steps and
            warns; "raise" raises FloatingPointError.

    Raises:
        ConfigError: the optimizer does not fit the model's parameters.
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
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self.on_nonfinite = on_nonfinite
        self.layout = ParamLayout(model.n_params, model.network.shapes)
        self.n_steps = 0
        self.n_skipped_steps = 0
        n_matrices = len(optimizer.matrix_ranges(self.layout))
        self._matrices = np.zeros((optimizer.n_matrix_state, n_matrices), np.float32)
        self._statistics = np.zeros(optimizer.n_statistics(self.layout), np.float32)
        self._state = optimizer.initial_state(model.params)

    def __repr__(self) -> str:
        return f"Trainer({self.model!r}, {self.optimizer}, {self.loss}, n_steps={self.n_steps})"

    @property
    def params(self) -> np.ndarray:
        """The parameters that are trained."""
        return self.model.params

    @property
    def inference_params(self) -> np.ndarray:
        """The parameters for inference; some optimizers keep an average for it."""
        row = self.optimizer.inference_row
        return self.model.params if row is None or self.n_steps == 0 else self._state[row]

    @property
    def optimizer_state(self) -> np.ndarray:
        """The optimizer's state, float32 [n_state, n_params]."""
        return self._state

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
        dl_dinput: np.ndarray | None = None,
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
            dl_dinput: a float32 array [n, n_input_dims] that receives the gradient of the inputs.
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
        model = self.model
        inputs = as_host_matrix(inputs, "inputs", model.n_input_dims)
        n = inputs.shape[0]

        def of_outputs(value, name):
            return None if value is None else as_host_matrix(value, name, model.n_output_dims, n)

        if targets is None and external_dl_dy is None:
            raise ValueError("targets: None is allowed only if external_dl_dy is given")
        targets = of_outputs(targets, "targets")
        pdf = of_outputs(pdf, "pdf")
        external = of_outputs(external_dl_dy, "external_dl_dy")
        batch = {"inputs": inputs, "targets": targets, "pdf": pdf, "external_dl_dy": external}
        check_gradient_mode(gradient_mode)
        if dl_dinput is not None:
            _check_output_array(dl_dinput, "dl_dinput", inputs.shape)
            for name, array in batch.items():
                if array is not None and np.may_share_memory(dl_dinput, array):
                    raise ValueError(f"dl_dinput: shares memory with {name}; use another array")
        gradients = None if gradient_mode == "ignore" else model.gradients
        if gradient_mode == "overwrite":
            gradients[:] = 0
        loss = model.engine.forward_backward(
            inputs,
            self.inference_params if use_inference_params else model.params,
            loss=None if targets is None else self.loss,
            targets=targets,
            pdf=pdf if targets is not None else None,
            external=external,
            gradients=gradients,
            dl_dinput=dl_dinput,
        )
        if run_optimizer and gradients is not None and n > 0:
            self._step(loss, all_finite(inputs.reshape(-1)))
        return Loss(loss)

    def _step(self, loss: float, inputs_are_finite: bool) -> None:
        model = self.model
        if not (inputs_are_finite and math.isfinite(loss) and all_finite(model.gradients)):
            message = "the inputs, the loss or a gradient are infinite or NaN"
            if self.on_nonfinite == "raise":
                raise FloatingPointError(f"{message}; the parameters were left as they are")
            self.n_skipped_steps += 1
            model.gradients[:] = 0  # so that what is accumulated next starts anew
            warnings.warn(f"{message}; the step was skipped", RuntimeWarning, stacklevel=3)
            return
        t = self.n_steps + 1
        state = self._state, self._matrices, self._statistics
        optimize(self.optimizer, self.layout, t, model.params, model.gradients, *state)
        self.n_steps = t

    def inference(self, inputs) -> np.ndarray:
        """Evaluate the model with the parameters for inference."""
        return self.model.inference(inputs, self.inference_params)

    def input_gradient(self, dim: int, inputs) -> np.ndarray:
        """The derivative of output `dim` for the inputs, at the parameters for inference."""
        return self.model.input_gradient(dim, inputs, self.inference_params)

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

    def _tensors(self) -> dict[str, np.ndarray]:
        """What a snapshot holds."""
        tensors = {"params": self.params, "optimizer.state": self._state}
        for name, array in (("matrices", self._matrices), ("statistics", self._statistics)):
            if len(array):
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
        write_snapshot(path, self._tensors(), header)

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
        expected = self._tensors()
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
            array[:] = tensors[name]
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


def _check_output_array(array: Any, name: str, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        raise TypeError(f"{name}: expected a float32 NumPy array to write to, got {array!r:.80}")
    if array.shape != shape or not array.flags.carray:
        raise ValueError(
            f"{name}: expected a writable C-order array of shape {list(shape)}, got "
            f"{list(array.shape)} with strides {list(array.strides)}"
        )
