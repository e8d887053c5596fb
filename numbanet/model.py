"""Models: what owns parameters and evaluates itself, forward and backward.

All parameters of a model are one flat float32 vector in tiny-cuda-nn's order: the network's
matrices, then the encoding's tables.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from numbanet import registry
from numbanet.activations import Activation
from numbanet.array_types import Array, ArrayLike
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.identity import Identity
from numbanet.engine import Batch, Gradients
from numbanet.networks.base import ALIGNMENT, AbstractMLP, next_multiple
from numbanet.random import Pcg32, seed_sequence
from numbanet.shown import shown
from numbanet.summary import summary_of
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.unknown_options import UnknownOptions

MOST_DIMS = 2**20  # of inputs and of outputs
GRADIENT_MODES = ("overwrite", "accumulate", "ignore")
SEED_CONVENTIONS = ("bindings", "trainer")


def initial_rng(seed: int, convention: str) -> Pcg32:
    """The generator of the initial parameters.

    tiny-cuda-nn seeds it with the number itself in its PyTorch bindings, and with the first word
    of C++'s std::seed_seq in its own Trainer; so the same seed gives different weights there.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: {shown(seed)} is not allowed; use an integer from 0")
    if convention not in SEED_CONVENTIONS:
        raise ValueError(f"seed_convention: {shown(convention)}; use one of {SEED_CONVENTIONS}")
    return Pcg32(int(seed) if convention == "bindings" else seed_sequence(int(seed)))


def check_dims(name: str, n: Any) -> int:
    """n as an int; raises ValueError unless it is a whole number from 1 to MOST_DIMS."""
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= MOST_DIMS:
        raise ValueError(f"{name}: {shown(n)} is not allowed; use an integer from 1 to {MOST_DIMS}")
    return int(n)


def check_bool(name: str, value: Any) -> bool:
    """The value; raises ValueError unless it is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use True or False")
    return value


def check_gradient_mode(mode: str) -> None:
    """Raises ValueError unless the mode exists."""
    if mode not in GRADIENT_MODES:
        raise ValueError(f"gradient_mode: {shown(mode)}; use one of {', '.join(GRADIENT_MODES)}")


@dataclass(frozen=True)
class Context:
    """What `backward` needs of a `forward`. Nothing is copied: do not change the arrays between."""

    inputs: Array
    params: Array  # as the kernels read them


class AbstractModel(ABC):
    """Parameters, their gradients, and names for parts of both.

    Arrays that come out are NumPy arrays on the CPU, and arrays on the device on a GPU.
    """

    __slots__ = {  # with what help() says of each
        "n_input_dims": "Inputs of a sample.",
        "n_output_dims": "Outputs of a sample.",
        "padded_output_dims": "Outputs of the kernels, whose last ones are dropped.",
        "encoding": "The encoding component.",
        "activations": "The activation of each layer; none for an encoding.",
        "target": "The device, in a precision: what memory and kernels come from.",
        "parameters": "The parameters, with their copy for the kernels.",
        "target_gradients": "The gradients, as the kernels have them.",
        "engine": "What evaluates and differentiates the model on its target.",
        **dict.fromkeys(("_n_params", "__weakref__")),
    }

    n_input_dims: int
    n_output_dims: int
    padded_output_dims: int
    encoding: AbstractEncoding
    activations: tuple[Activation, ...]
    engine: Any

    def __init__(self, params: np.ndarray, n_matrix_params: int, target: AbstractTarget):
        self.activations = ()
        self.target = target
        self.parameters = target.parameters(params, n_matrix_params)
        self.target_gradients = target.gradients(params.size, n_matrix_params)
        self._n_params = params.size

    def __reduce__(self):
        """Pickled are the components, the device's name and the parameters; no gradients."""
        target = self.target
        place = target.name, target.precision, target.fused
        params = target.to_host(self.params)
        return restored, (type(self), self._components(), place, params, self.deterministic)

    @abstractmethod
    def _components(self) -> dict[str, Any]:
        """What a model is made of: arguments of its class, beside `rng` and `target`."""

    @property
    def device(self) -> str:
        """Where the model lies, such as "cpu" or "cuda:0"."""
        return self.target.name

    @property
    def precision(self) -> str:
        """Of the parameters that the kernels read."""
        return self.target.precision

    @property
    def deterministic(self) -> bool:
        """Whether gradients and losses are the same bits in every run; may be set, see Trainer.

        On the CPU they always are.
        """
        return self.engine.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.engine.deterministic = check_bool("deterministic", value)

    @property
    def n_params(self) -> int:
        """The number of parameters."""
        return self._n_params

    @property
    def params(self) -> Array:
        """All parameters, float32 [n_params]; writing to it changes the model.

        Assigning it (`model.params = values`) sets all copies, as in tiny-cuda-nn: what a trainer
        averages of the weights, such as those for inference, becomes the new values too, while
        moments and the number of steps stay. Writing to the array, or to a view of it, changes the
        trained weights; averages that have begun follow with the next steps.
        """
        return self.parameters.array

    @params.setter
    def params(self, values: ArrayLike) -> None:
        self.parameters.assign(self.target.vector(values, "params", self.n_params))

    @property
    def gradients(self) -> Array:
        """The gradient of all parameters, float32 [n_params], as of the last backward pass."""
        return self.target_gradients.flat

    def __call__(
        self, inputs: ArrayLike, params: ArrayLike | None = None, out: Array | None = None
    ) -> Array:
        """Evaluate the model: [n, n_input_dims] -> float32 [n, n_output_dims].

        Args:
            inputs: any real numbers, any batch size.
            params: use these instead of the model's own, float32 [n_params].
            out: a float32 array [n, n_output_dims], of the model's device, that receives the
                outputs and is returned; nothing is allocated then.

        Raises:
            TypeError, ValueError: the arrays do not fit, or `out` shares memory with what is read.
        """
        inputs = self._inputs(inputs)
        if params is not None:
            params = self.target.vector(params, "params", self.n_params)
        outputs = self._outputs(out, inputs, params)
        found = self._evaluate(inputs, self._as_read(params), outputs)
        return found if out is None else out

    def inference(
        self, inputs: ArrayLike, params: ArrayLike | None = None, out: Array | None = None
    ) -> Array:
        """The same as a call of the model, by tiny-cuda-nn's name for it."""
        return self(inputs, params, out)

    def __repr__(self) -> str:
        return summary_of(self).heading()

    def _repr_html_(self) -> str:
        return summary_of(self)._repr_html_()

    @abstractmethod
    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        """The outputs for arrays of the target, in an array that is given or in a new one."""

    def forward(self, inputs: ArrayLike, params: ArrayLike | None = None) -> tuple[Array, Context]:
        """Evaluate the model and return what the backward passes need besides.

        Raises:
            TypeError, ValueError: the arrays do not fit.
        """
        context = Context(self._inputs(inputs), self._chosen_params(params))
        return self._evaluate(context.inputs, context.params, None), context

    @overload
    def backward(
        self, context: Context, dl_dy: ArrayLike, *, gradient_mode: str = "overwrite"
    ) -> Array: ...

    @overload
    def backward(
        self, context: Context, dl_dy: ArrayLike, *, input_gradient: bool,
        gradient_mode: str = "overwrite",
    ) -> Array | None: ...  # fmt: skip

    def backward(
        self,
        context: Context,
        dl_dy: ArrayLike,
        *,
        input_gradient: bool = True,
        gradient_mode: str = "overwrite",
    ) -> Array | None:
        """Propagate the gradient of the outputs, float32 [n, n_output_dims], backward.

        The gradient of the parameters goes to `gradients`: it replaces what is there, adds to it
        ("accumulate"), or is not computed ("ignore").

        Returns:
            The gradient of the inputs [n, n_input_dims], if `input_gradient`.

        Raises:
            TypeError, ValueError: the arrays do not fit, or the mode does not exist.
        """
        shape = context.inputs.shape
        dl_dy = self.target.matrix(dl_dy, "dl_dy", self.n_output_dims, shape[0])
        gradients = self._gradients_for(gradient_mode)
        dl_dx = self.target.empty(*shape) if input_gradient else None
        self._propagate(context, dl_dy, gradients, dl_dx)
        return dl_dx

    @abstractmethod
    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        """Backward, with arrays of the target; writes dl_dx where there is one."""

    def named_parameters(self) -> dict[str, Array]:
        """Views of the parameters by name, such as "network.0" [fan out, fan in]."""
        return self._named(self.params)

    def named_gradients(self) -> dict[str, Array]:
        """Views of the gradients, by the names of named_parameters."""
        return self._named(self.gradients)

    def double_backward(
        self,
        context: Context,
        dl_dy: ArrayLike,
        dl_ddl_dx: ArrayLike,
        *,
        gradient_mode: str = "overwrite",
    ) -> tuple[Array, Array]:
        """Differentiate `backward`'s gradient of the inputs once more.

        Args:
            context: of the forward pass.
            dl_dy: the gradient of the outputs that `backward` was given.
            dl_ddl_dx: the gradient of the loss with respect to what `backward` returned.
            gradient_mode: what happens to `gradients`.

        Returns:
            The gradients with respect to dl_dy [n, n_output_dims] and the inputs [n, n_input_dims].

        Raises:
            TypeError, ValueError: the arrays do not fit, the mode does not exist, or an activation
                has no second derivative.
        """
        for activation in self.activations:
            if activation.second is None:
                raise TypeError(
                    f"activation {activation.name} has no `second`, the second derivative that "
                    "double_backward needs"
                )
        inputs, n = context.inputs, context.inputs.shape[0]
        dl_dy = self.target.matrix(dl_dy, "dl_dy", self.n_output_dims, n)
        dl_ddl_dx = self.target.matrix(dl_ddl_dx, "dl_ddl_dx", self.n_input_dims, n)
        gradients = self._gradients_for(gradient_mode)
        return self.engine.double_backward(inputs, context.params, dl_dy, dl_ddl_dx, gradients)

    @abstractmethod
    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of the parameters, in their order."""

    def _named(self, flat: Any) -> dict[str, Any]:
        views, start = {}, 0
        for name, shape in self.named_shapes().items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(*shape)
            start = stop
        return views

    def _inputs(self, inputs: Any) -> Any:
        return self.target.matrix(inputs, "inputs", self.n_input_dims)

    def _chosen_params(self, params: Any) -> Any:
        if params is not None:
            params = self.target.vector(params, "params", self.n_params)
        return self._as_read(params)

    def _as_read(self, params: Any) -> Any:
        """The model's own parameters, or others, as the kernels read them."""
        parameters = self.parameters
        return parameters.current() if params is None else parameters.converted(params)

    def _outputs(self, out: Any, inputs: Any, params: Any) -> Any:
        """An array of the user's for the outputs, checked; None where there is none."""
        if out is None:
            return None
        shape = inputs.shape[0], self.n_output_dims
        used = self.parameters.master if params is None else params
        return self.target.output_apart(out, "out", shape, inputs=inputs, params=used)

    def _gradients_for(self, mode: str) -> Gradients | None:
        check_gradient_mode(mode)
        if mode == "ignore" or self.n_params == 0:
            return None
        if mode == "overwrite":
            self.target.set_zero(self.gradients)
        return self.target_gradients


class NetworkWithInputEncoding(AbstractModel):
    """An encoding and the network that reads it, evaluated together.

    Args:
        encoding: the encoding component; its features are padded to a multiple of 16.
        network: the network component, with the padded width as its n_input_dims.
        rng: where the initial parameters come from.
        target: what it runs on.
    """

    __slots__ = {"network": "The network component."}

    def __init__(
        self, encoding: AbstractEncoding, network: AbstractMLP, rng: Pcg32, target: AbstractTarget
    ):
        params = [network.initial_params(rng), encoding.initial_params(rng)]
        super().__init__(np.concatenate(params).astype(np.float32), network.n_params, target)
        self.encoding = encoding
        self.network = network
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = network.n_output_dims
        self.padded_output_dims = network.padded_output_dims
        self.activations = network.layer_activations
        padded = encoding.padded(network.n_input_dims)
        self.engine = target.network_engine(EncodedNetwork(padded, network))

    def _components(self):
        return {"encoding": self.encoding, "network": self.network}

    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        matrices = {f"network.{k}": shape for k, shape in enumerate(self.network.shapes)}
        parts = self.encoding.param_shapes.items()
        return {**matrices, **{f"encoding.{name}": shape for name, shape in parts}}

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.inference(inputs, params, outputs)

    def kernel_params(self, params: ArrayLike | None = None) -> Array:
        """The parameters as kernels read them, [n_params] in `precision`; see device_functions.

        Args:
            params: convert these instead of the model's own, float32 [n_params].
        """
        return self._chosen_params(params)

    def device_functions(
        self, threads_per_block: int = 128, shared_offset: int = 0, fused: bool | None = None
    ) -> Any:
        """Functions `load` and `infer` that evaluate this model in CUDA kernels of the user's.

        They stay valid while the model is trained: the parameters are an argument of the kernel,
        for which `kernel_params()` is asked before each launch.

        Args:
            threads_per_block: that the kernel will be launched with, a multiple of 32.
            shared_offset: bytes of dynamic shared memory in front that belong to others, such as
                the device functions of another model.
            fused: None lets the lanes of a warp work together on tensor cores where that is
                possible, and else each lane alone, which is much slower; True raises an error
                instead; False is each lane alone.

        Returns:
            numbanet.cuda.in_kernels.device_functions.DeviceFunctions.

        Raises:
            ValueError: the model is not on a GPU, an argument is not allowed, or fused=True asks
                for what is not possible.
        """
        return self.target.device_functions(
            self.engine.model,
            threads_per_block=threads_per_block,
            shared_offset=shared_offset,
            fused=fused,
        )

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        batch = Batch(context.inputs, external_dl_dy=dl_dy)
        self.engine.forward_backward(batch, context.params, None, gradients, dl_dx)

    def input_gradient(self, dim: int, inputs: ArrayLike, params: ArrayLike | None = None) -> Array:
        """The derivative of output `dim` with respect to the inputs, float32 [n, n_input_dims].

        Raises:
            ValueError: there is no such output.
        """
        if not (isinstance(dim, (int, np.integer)) and 0 <= dim < self.n_output_dims):
            raise ValueError(f"dim: {shown(dim)} is no output; use 0 to {self.n_output_dims - 1}")
        context = Context(self._inputs(inputs), self._chosen_params(params))
        one_hot = np.zeros((context.inputs.shape[0], self.n_output_dims), np.float32)
        one_hot[:, dim] = 1
        return self.backward(context, one_hot, gradient_mode="ignore")


class Network(NetworkWithInputEncoding):
    """A network by itself: its inputs are padded with ones to a multiple of 16.

    The networks have no biases; the weights of the padding act as the first layer's.
    """

    __slots__ = ()


class Encoding(AbstractModel):
    """An encoding by itself.

    Args:
        encoding: the encoding component.
        rng: where the initial parameters come from.
        target: what it runs on.
        alignment: pad the features to a multiple of this; 0 for no padding.
    """

    __slots__ = {"alignment": "Outputs are a multiple of this; 0 for no padding."}

    def __init__(
        self, encoding: AbstractEncoding, rng: Pcg32, target: AbstractTarget, alignment: int = 0
    ):
        super().__init__(encoding.initial_params(rng), 0, target)
        self.encoding, self.alignment = encoding, alignment
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = encoding.n_outputs
        if alignment:
            self.n_output_dims = padded_encoding_width(encoding, alignment)
        self.padded_output_dims = self.n_output_dims
        self.engine = target.encoding_engine(encoding.padded(self.n_output_dims))

    def _components(self):
        return {"encoding": self.encoding, "alignment": self.alignment}

    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.encoding.param_shapes)

    def _evaluate(self, inputs: Any, params: Any, outputs: Any) -> Any:
        return self.engine.forward(inputs, params, outputs)

    def _propagate(
        self, context: Context, dl_dy: Any, gradients: Gradients | None, dl_dx: Any
    ) -> None:
        self.engine.backward(context.inputs, context.params, dl_dy, gradients, dl_dx)


def restored(
    kind: type, components: Mapping[str, Any], place: tuple, params: Any, deterministic: bool
) -> AbstractModel:
    """The model that was pickled, on the device of the same name; raises as target_for."""
    model = kind(rng=Pcg32(0), target=target_for(*place), **components)
    model.params, model.deterministic = params, deterministic
    return model


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
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
) -> Encoding:
    """Make an encoding from its JSON config.

    Raises:
        ConfigError: the config cannot be used.
        ValueError: another argument cannot.
        RuntimeError: the device cannot be used.
    """
    target = target_for(device, precision)
    component = create_encoding_component(n_input_dims, config)
    is_integer = isinstance(alignment, (int, np.integer)) and not isinstance(alignment, bool)
    if not (is_integer and 0 <= alignment <= MOST_DIMS):
        raise ValueError(
            f"alignment: {shown(alignment)} is not allowed; use an integer from 0 to {MOST_DIMS}"
        )
    return Encoding(component, initial_rng(seed, seed_convention), target, int(alignment))


def create_network(
    n_input_dims: int,
    n_output_dims: int,
    config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
) -> Network:
    """Make a network without encoding from its JSON config; raises as create_encoding."""
    target = target_for(device, precision)
    encoding = Identity(n_dims=check_dims("n_input_dims", n_input_dims))
    network = create_network_component(encoding, n_output_dims, config)
    return Network(encoding, network, initial_rng(seed, seed_convention), target)


def create_network_with_input_encoding(
    n_input_dims: int,
    n_output_dims: int,
    encoding_config: Mapping[str, Any],
    network_config: Mapping[str, Any],
    seed: int = 1337,
    *,
    device: Any = "auto",
    precision: str | None = None,
    seed_convention: str = "bindings",
    fused: bool | None = None,
) -> NetworkWithInputEncoding:
    """Make an encoding with a network from their JSON configs; raises as create_encoding.

    For `fused` see create_from_config.
    """
    target = target_for(device, precision, fused)
    with UnknownOptions():
        encoding = create_encoding_component(n_input_dims, encoding_config)
        network = create_network_component(encoding, n_output_dims, network_config)
    return NetworkWithInputEncoding(encoding, network, initial_rng(seed, seed_convention), target)


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
        raise registry.ConfigError(
            f"encoding: {type(encoding).__name__} has no features for a network"
        )
    return registry.create(
        "network",
        config,
        default="MLP",
        n_input_dims=n_features,
        n_output_dims=check_dims("n_output_dims", n_output_dims),
    )
