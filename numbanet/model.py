"""Models: what owns parameters and evaluates itself, forward and backward.

All parameters of a model are one flat float32 vector in tiny-cuda-nn's order: the network's
matrices, then the encoding's tables.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.arrays import as_host_matrix, as_host_vector
from numbanet.cpu import encoding_kernels
from numbanet.cpu.engine import CpuEngine
from numbanet.cpu.kernels import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.identity import Identity
from numbanet.networks.base import ALIGNMENT, AbstractMLP, next_multiple
from numbanet.random import Pcg32, seed_sequence

GRADIENT_MODES = ("overwrite", "accumulate", "ignore")
SEED_CONVENTIONS = ("bindings", "trainer")


def resolve_device(device: str) -> str:
    """The device that a name stands for.

    Raises:
        ValueError: there is no such device.
        RuntimeError: it cannot be used.
    """
    if device in ("auto", "cpu"):
        return "cpu"
    if isinstance(device, str) and (device == "cuda" or device.startswith("cuda:")):
        raise RuntimeError(
            f"device {device!r}: the CUDA target is not part of this version; use device='cpu'"
        )
    raise ValueError(f"device {device!r} does not exist; use 'auto', 'cpu', 'cuda' or 'cuda:N'")


def resolve_precision(precision: str | None) -> str:
    """The precision of the parameters that the kernels read; float32 on the CPU.

    Raises:
        ValueError: there is no such precision, or the CPU does not offer it.
    """
    if precision in (None, "float32"):
        return "float32"
    if precision in ("float16", "bfloat16"):
        raise ValueError(f"precision {precision!r} needs CUDA; on the CPU use 'float32'")
    raise ValueError(
        f"precision {precision!r} does not exist; use 'float32', 'float16' or 'bfloat16'"
    )


def initial_rng(seed: int, convention: str) -> Pcg32:
    """The generator of the initial parameters.

    tiny-cuda-nn seeds it with the number itself in its PyTorch bindings, and with the first word
    of C++'s std::seed_seq in its own Trainer; so the same seed gives different weights there.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: {seed!r} is not allowed; use an integer from 0")
    if convention not in SEED_CONVENTIONS:
        raise ValueError(f"seed_convention: {convention!r}; use one of {SEED_CONVENTIONS}")
    return Pcg32(int(seed) if convention == "bindings" else seed_sequence(int(seed)))


def check_dims(name: str, n: Any) -> int:
    """n as an int; raises ValueError unless it is a whole number above 0."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"{name}: {n!r} is not allowed; use an integer from 1")
    return int(n)


def check_gradient_mode(mode: str) -> None:
    """Raises ValueError unless the mode exists."""
    if mode not in GRADIENT_MODES:
        raise ValueError(f"gradient_mode: {mode!r}; use one of {', '.join(GRADIENT_MODES)}")


@dataclass(frozen=True)
class Context:
    """What `backward` needs of a `forward`. Nothing is copied: do not change the arrays between."""

    inputs: np.ndarray
    params: np.ndarray


class AbstractModel(ABC):
    """Parameters, their gradients, and names for parts of both."""

    device = "cpu"
    precision = "float32"
    n_input_dims: int
    n_output_dims: int
    padded_output_dims: int

    def __init__(self, params: np.ndarray):
        self._params = params
        self._gradients = np.zeros_like(params)

    @property
    def n_params(self) -> int:
        return self._params.size

    @property
    def params(self) -> np.ndarray:
        """All parameters, float32 [n_params]; writing to it changes the model."""
        return self._params

    @params.setter
    def params(self, values) -> None:
        self._params[:] = as_host_vector(values, "params", self.n_params)

    @property
    def gradients(self) -> np.ndarray:
        """The gradient of all parameters, float32 [n_params], as of the last backward pass."""
        return self._gradients

    def named_parameters(self) -> dict[str, np.ndarray]:
        """Views of the parameters by name, such as "network.0" [fan out, fan in]."""
        return self._named(self._params)

    def named_gradients(self) -> dict[str, np.ndarray]:
        """Views of the gradients, by the names of named_parameters."""
        return self._named(self._gradients)

    @abstractmethod
    def _named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of the parameters, in their order."""

    def _named(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        views, start = {}, 0
        for name, shape in self._named_shapes().items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(shape)
            start = stop
        return views

    def _inputs(self, inputs) -> np.ndarray:
        return as_host_matrix(inputs, "inputs", self.n_input_dims)

    def _chosen_params(self, params) -> np.ndarray:
        return self._params if params is None else as_host_vector(params, "params", self.n_params)

    def _target_gradients(self, mode: str) -> np.ndarray | None:
        check_gradient_mode(mode)
        if mode == "ignore" or self.n_params == 0:
            return None
        if mode == "overwrite":
            self._gradients[:] = 0
        return self._gradients


class NetworkWithInputEncoding(AbstractModel):
    """An encoding and the network that reads it, evaluated together.

    Args:
        encoding: the encoding component; its features are padded to a multiple of 16.
        network: the network component, with the padded width as its n_input_dims.
        rng: where the initial parameters come from.
    """

    def __init__(self, encoding: AbstractEncoding, network: AbstractMLP, rng: Pcg32):
        params = [network.initial_params(rng), encoding.initial_params(rng)]
        super().__init__(np.concatenate(params).astype(np.float32))
        self.encoding = encoding
        self.network = network
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = network.n_output_dims
        self.padded_output_dims = network.padded_output_dims
        self.engine = CpuEngine(EncodedNetwork(encoding.padded(network.n_input_dims), network))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.encoding}, {self.network}, device={self.device!r})"

    def _named_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = {f"network.{k}": shape for k, shape in enumerate(self.network.shapes)}
        for name, shape in self.encoding.param_shapes.items():
            shapes[f"encoding.{name}"] = shape
        return shapes

    def inference(self, inputs, params=None) -> np.ndarray:
        """Evaluate the model: [n, n_input_dims] -> float32 [n, n_output_dims].

        Args:
            inputs: any real numbers, any batch size.
            params: use these instead of the model's own, float32 [n_params].

        Raises:
            TypeError, ValueError: the arrays do not fit.
        """
        return self.engine.inference(self._inputs(inputs), self._chosen_params(params))

    def forward(self, inputs, params=None) -> tuple[np.ndarray, Context]:
        """Evaluate the model and return what `backward` needs besides."""
        context = Context(self._inputs(inputs), self._chosen_params(params))
        return self.engine.inference(context.inputs, context.params), context

    def backward(
        self, context: Context, dl_dy, *, input_gradient=True, gradient_mode="overwrite"
    ) -> np.ndarray | None:
        """Propagate the gradient of the outputs, float32 [n, n_output_dims], backward.

        The gradient of the parameters goes to `gradients`: it replaces what is there, adds to it
        ("accumulate"), or is not computed ("ignore").

        Returns:
            The gradient of the inputs [n, n_input_dims], if `input_gradient`.

        Raises:
            TypeError, ValueError: the arrays do not fit, or the mode does not exist.
        """
        n = context.inputs.shape[0]
        dl_dy = as_host_matrix(dl_dy, "dl_dy", self.n_output_dims, n)
        dl_dx = np.zeros_like(context.inputs) if input_gradient else None
        gradients = self._target_gradients(gradient_mode)
        self.engine.forward_backward(
            context.inputs, context.params, external=dl_dy, gradients=gradients, dl_dinput=dl_dx
        )
        return dl_dx

    def input_gradient(self, dim: int, inputs, params=None) -> np.ndarray:
        """The derivative of output `dim` with respect to the inputs, float32 [n, n_input_dims].

        Raises:
            ValueError: there is no such output.
        """
        if not (isinstance(dim, (int, np.integer)) and 0 <= dim < self.n_output_dims):
            raise ValueError(f"dim: {dim!r} is no output; use 0 to {self.n_output_dims - 1}")
        context = Context(self._inputs(inputs), self._chosen_params(params))
        one_hot = np.zeros((context.inputs.shape[0], self.n_output_dims), np.float32)
        one_hot[:, dim] = 1
        return self.backward(context, one_hot, gradient_mode="ignore")


class Network(NetworkWithInputEncoding):
    """A network by itself: its inputs are padded with ones to a multiple of 16.

    The networks have no biases; the weights of the padding act as the first layer's.
    """


class Encoding(AbstractModel):
    """An encoding by itself.

    Args:
        encoding: the encoding component.
        rng: where the initial parameters come from.
        alignment: pad the features to a multiple of this; 0 for no padding.
    """

    def __init__(self, encoding: AbstractEncoding, rng: Pcg32, alignment: int = 0):
        super().__init__(encoding.initial_params(rng))
        self.encoding = encoding
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = encoding.n_outputs
        if alignment:
            self.n_output_dims = padded_encoding_width(encoding, alignment)
        self.padded_output_dims = self.n_output_dims
        self._padded = encoding.padded(self.n_output_dims)

    def __repr__(self) -> str:
        return f"Encoding({self.encoding}, device={self.device!r})"

    def _named_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.encoding.param_shapes)

    def inference(self, inputs, params=None) -> np.ndarray:
        """Encode: [n, n_input_dims] -> float32 [n, n_output_dims]."""
        return self.forward(inputs, params)[0]

    def forward(self, inputs, params=None) -> tuple[np.ndarray, Context]:
        """Encode, and return what the backward passes need besides."""
        context = Context(self._inputs(inputs), self._chosen_params(params))
        outputs = np.empty((context.inputs.shape[0], self.n_output_dims), np.float32)
        kernel = encoding_kernels.forward_kernel(self._padded)
        kernel(context.inputs, context.params, outputs)
        return outputs, context

    def backward(
        self, context: Context, dl_dy, *, input_gradient=True, gradient_mode="overwrite"
    ) -> np.ndarray | None:
        """Propagate the gradient of the features backward, as a network's `backward` does."""
        inputs = context.inputs
        dl_dy = as_host_matrix(dl_dy, "dl_dy", self.n_output_dims, inputs.shape[0])
        gradients = self._target_gradients(gradient_mode)
        if gradients is not None:
            kernel = encoding_kernels.backward_params_kernel(self._padded)
            kernel(inputs, context.params, dl_dy, gradients)
        if not input_gradient:
            return None
        dl_dx = np.empty_like(inputs)
        kernel = encoding_kernels.backward_input_kernel(self._padded)
        kernel(inputs, context.params, dl_dy, dl_dx)
        return dl_dx

    def double_backward(
        self, context: Context, dl_dy, dl_ddl_dx, *, gradient_mode="overwrite"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Differentiate `backward`'s gradient of the inputs once more.

        Args:
            context: of the forward pass.
            dl_dy: the gradient of the features that `backward` was given.
            dl_ddl_dx: the gradient of the loss with respect to what `backward` returned.
            gradient_mode: what happens to `gradients`.

        Returns:
            The gradients with respect to dl_dy [n, n_output_dims] and the inputs [n, n_input_dims].
        """
        inputs = context.inputs
        n = inputs.shape[0]
        dl_dy = as_host_matrix(dl_dy, "dl_dy", self.n_output_dims, n)
        dl_ddl_dx = as_host_matrix(dl_ddl_dx, "dl_ddl_dx", self.n_input_dims, n)
        gradients = self._target_gradients(gradient_mode)
        if gradients is not None:
            kernel = encoding_kernels.double_backward_params_kernel(self._padded)
            kernel(inputs, context.params, dl_dy, dl_ddl_dx, gradients)
        dl_ddl_dy, dl_dx = np.empty_like(dl_dy), np.empty_like(inputs)
        kernel = encoding_kernels.double_backward_input_kernel(self._padded)
        kernel(inputs, context.params, dl_dy, dl_ddl_dx, dl_ddl_dy, dl_dx)
        return dl_ddl_dy, dl_dx


def padded_encoding_width(encoding: AbstractEncoding, alignment: int) -> int:
    """Width of an encoding's output after padding, as tiny-cuda-nn pads."""
    divisor = math.lcm(alignment, encoding.required_output_alignment)
    return next_multiple(encoding.n_outputs, divisor)


def create_encoding(
    n_input_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    alignment: int = 0,
    device: str = "auto",
    seed_convention: str = "bindings",
) -> Encoding:
    """Make an encoding from its JSON config.

    Raises:
        ConfigError: the config cannot be used.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    resolve_device(device)
    component = create_encoding_component(n_input_dims, config)
    if isinstance(alignment, bool) or not isinstance(alignment, (int, np.integer)) or alignment < 0:
        raise ValueError(f"alignment: {alignment!r} is not allowed; use an integer from 0")
    return Encoding(component, initial_rng(seed, seed_convention), int(alignment))


def create_network(
    n_input_dims: int,
    n_output_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: str = "auto",
    seed_convention: str = "bindings",
) -> Network:
    """Make a network without encoding from its JSON config; raises as create_encoding."""
    resolve_device(device)
    encoding = Identity(n_dims=check_dims("n_input_dims", n_input_dims))
    network = create_network_component(encoding, n_output_dims, config)
    return Network(encoding, network, initial_rng(seed, seed_convention))


def create_network_with_input_encoding(
    n_input_dims: int,
    n_output_dims: int,
    encoding_config: Mapping[str, Any],
    network_config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: str = "auto",
    seed_convention: str = "bindings",
) -> NetworkWithInputEncoding:
    """Make an encoding with a network from their JSON configs; raises as create_encoding."""
    resolve_device(device)
    encoding = create_encoding_component(n_input_dims, encoding_config)
    network = create_network_component(encoding, n_output_dims, network_config)
    return NetworkWithInputEncoding(encoding, network, initial_rng(seed, seed_convention))


def create_encoding_component(n_input_dims: int, config: Mapping[str, Any]) -> AbstractEncoding:
    """The component of an encoding config, for inputs of n_input_dims."""
    n_dims = check_dims("n_input_dims", n_input_dims)
    return registry.create("encoding", config, default="OneBlob", n_dims=n_dims)


def create_network_component(
    encoding: AbstractEncoding, n_output_dims: int, config: Mapping[str, Any]
) -> AbstractMLP:
    """The component of a network config, for the padded features of an encoding."""
    n_features = padded_encoding_width(encoding, ALIGNMENT)
    if n_features == 0:
        raise registry.ConfigError(f"encoding: {encoding.otype} has no features for a network")
    return registry.create(
        "network",
        config,
        default="MLP",
        n_input_dims=n_features,
        n_output_dims=check_dims("n_output_dims", n_output_dims),
    )
