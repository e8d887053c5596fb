"""What evaluates models on tensors: the engines of a target, without parameters of their own.

Everything is a function of a model's description (JSON text), of the inputs and of the parameters,
so that nothing has to be kept between a forward and a backward pass. On the CPU the features of the
encoding are kept all the same, because to read them is faster than to encode again.
"""

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from numbanet import registry
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.identity import Identity
from numbanet.losses.base import AbstractLoss
from numbanet.model import create_encoding_component, create_network_component, initial_rng
from numbanet.networks.base import AbstractMLP
from numbanet.target import AbstractTarget, Gradients
from numbanet.targets import target_for
from numbanet.torch.tensors import array_of, current_stream, tensor_of
from numbanet.unknown_options import UnknownOptions

MOST_EVALUATORS = 64  # kept; on a GPU each has buffers as large as its largest batch


ABSENT = object()  # for what a model has not; a mistaken None is not to pass for it


def describe(
    n_input_dims: int,
    n_output_dims: int | object,
    encoding_config: Mapping[str, Any] | object,
    network_config: Mapping[str, Any] | None,
) -> str:
    """The description of a model: JSON text in which every option is written out.

    Args:
        n_input_dims: width of the inputs.
        n_output_dims: width of the network's outputs; ABSENT without a network.
        encoding_config: ABSENT for a network by itself.
        network_config: not read for an encoding by itself.

    Raises:
        ConfigError: a config cannot be used.
        ValueError: a width cannot.
    """
    has_encoding = encoding_config is not ABSENT
    read = encoding_config if has_encoding else {"otype": "Identity"}
    with UnknownOptions():
        encoding = create_encoding_component(n_input_dims, read)
        network, n_outputs = None, encoding.n_outputs
        if n_output_dims is not ABSENT:
            network = create_network_component(encoding, n_output_dims, network_config)
            n_outputs = network.n_output_dims
    sizes = {"n_input_dims": encoding.n_dims, "n_output_dims": n_outputs}
    configs = {"encoding": registry.to_config(encoding) if has_encoding else None}
    configs["network"] = network and registry.to_config(network)
    return json.dumps(sizes | configs)


@cache
def sizes(description: str) -> tuple[int, int]:
    """The number of inputs and outputs."""
    read = json.loads(description)
    return read["n_input_dims"], read["n_output_dims"]


@cache
def components(description: str) -> tuple[AbstractEncoding, AbstractMLP | None]:
    """The encoding and, where there is one, the network."""
    read = json.loads(description)
    n_input_dims, n_output_dims = sizes(description)
    if read["encoding"] is None:
        encoding = Identity(n_dims=n_input_dims)
    else:
        encoding = create_encoding_component(n_input_dims, read["encoding"])
    if read["network"] is None:
        return encoding, None
    return encoding, create_network_component(encoding, n_output_dims, read["network"])


def n_kept(description: str, where: str) -> int:
    """How many numbers per sample a forward pass can keep, on the "cpu" or elsewhere.

    These are the features that the network reads, and on the CPU alone.
    """
    _, network = components(description)
    return 0 if network is None or where != "cpu" else network.n_input_dims


def n_params(description: str) -> int:
    """The length of the parameter vector."""
    return sum(part.n_params for part in components(description) if part is not None)


def initial_params(description: str, seed: int) -> np.ndarray:
    """The vector that tinycudann's bindings start from: float32, the network's part first."""
    rng = initial_rng(seed, "bindings")
    encoding, network = components(description)
    parts = [] if network is None else [network.initial_params(rng)]
    return np.concatenate([*parts, encoding.initial_params(rng)]).astype(np.float32, copy=False)


_gpus = set()  # that evaluators were made for


def target_of(device: torch.device, precision: str) -> AbstractTarget:
    """The target for tensors of a device; the CPU has float32 only.

    Raises:
        ValueError: it is neither the CPU nor a CUDA device.
        RuntimeError: the GPU cannot be used; the message says why.
    """
    if device.type == "cpu":
        return target_for("cpu")
    if device.type == "cuda":
        target = target_for(str(device), precision)
        _gpus.add(target.device)
        return target
    raise ValueError(f"device {str(device)!r} is not supported; move the module to 'cpu' or 'cuda'")


class Evaluator:
    """Evaluates a model for tensors of one device; all of them are float32.

    Args:
        description: see `describe`.
        target: what computes.
    """

    def __init__(self, description: str, target: AbstractTarget):
        encoding, network = components(description)
        self.n_inputs, self.n_outputs = sizes(description)
        self.n_params = n_params(description)
        self.target = target
        self._network = network
        self._n_kept = n_kept(description, target.name)
        self._n_matrix_params = 0 if network is None else network.n_params
        if network is None:
            self._engine = target.encoding_engine(encoding)
        else:
            padded = encoding.padded(network.n_input_dims)
            self._engine = target.network_engine(EncodedNetwork(padded, network))
        # of no values, because it serves to convert those of others
        self._parameters = target.parameters(np.empty(0, np.float32), self._n_matrix_params)

    def forward(
        self, x: torch.Tensor, params: torch.Tensor, keeps: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The outputs [n, n_outputs] for inputs [n, n_inputs], and what `backward` can do with.

        That is [n, n_kept], or [n, 0] where nothing is to be kept or can be.
        """
        with current_stream(self.target, x):
            inputs, read = self._arrays(x, params)
            if keeps and self._n_kept:
                y, features = self._engine.forward(inputs, read)
                return tensor_of(y), tensor_of(features)
            evaluate = self._engine.forward if self._network is None else self._engine.inference
            return tensor_of(evaluate(inputs, read)), x.new_empty(len(x), 0)

    def backward(
        self, dl_dy: torch.Tensor, x: torch.Tensor, params: torch.Tensor, kept: torch.Tensor,
        wants_x: bool, wants_params: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """The gradients of inputs and parameters, each empty if it is not wanted.

        `kept` is from `forward`; what is empty is computed anew.
        """
        with current_stream(self.target, x):
            inputs, read = self._arrays(x, params)
            dl_dy = self.target.matrix(array_of(dl_dy), "dl_dy", self.n_outputs, len(x))
            gradients = self._gradients(wants_params)
            dl_dx = self.target.empty(*inputs.shape) if wants_x else None
            if self._network is not None:
                features = {"features": array_of(kept)} if kept.numel() else {}
                self._engine.forward_backward(
                    inputs, read, external=dl_dy, gradients=gradients, dl_dinput=dl_dx, **features
                )
            else:
                self._engine.backward(inputs, read, dl_dy, gradients, dl_dx)
            return self._tensor(dl_dx, x), self._gradient_tensor(gradients, params)

    def double_backward(
        self, dl_dy: torch.Tensor, x: torch.Tensor, params: torch.Tensor, dl_ddx: torch.Tensor,
        wants_params: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """The gradients of dl_dy, inputs and parameters, given that of `backward`'s dl_dx."""
        for activation in () if self._network is None else self._network.activations:
            if activation.second is None:
                raise TypeError(
                    f"activation {activation.name} has no `second`, the second derivative that "
                    "create_graph=True needs"
                )
        with current_stream(self.target, x):
            inputs, read = self._arrays(x, params)
            dl_dy = self.target.matrix(array_of(dl_dy), "dl_dy", self.n_outputs, len(x))
            dl_ddx = self.target.matrix(array_of(dl_ddx), "dl_ddx", self.n_inputs, len(x))
            gradients = self._gradients(wants_params)
            dl_ddy, dl_dx = self._engine.double_backward(inputs, read, dl_dy, dl_ddx, gradients)
            dl_dparams = self._gradient_tensor(gradients, params)
            return tensor_of(dl_ddy), tensor_of(dl_dx), dl_dparams

    def loss(
        self, x: torch.Tensor, params: torch.Tensor, targets: torch.Tensor,
        pdf: torch.Tensor | None, loss: AbstractLoss, wants_x: bool, wants_params: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        """The mean loss [] and its gradients, as `backward` returns them, in one pass.

        Raises:
            ConfigError: the loss cannot take so many outputs.
        """
        loss.row(self.n_outputs, pdf is not None)  # which raises it
        with current_stream(self.target, x):
            inputs, read = self._arrays(x, params)
            wanted = self.target.matrix(array_of(targets), "targets", self.n_outputs, len(x))
            if pdf is not None:
                pdf = self.target.matrix(array_of(pdf), "pdf", self.n_outputs, len(x))
            gradients = self._gradients(wants_params)
            dl_dx = self.target.empty(*inputs.shape) if wants_x else None
            found = self._engine.forward_backward(
                inputs, read, loss=loss, targets=wanted, pdf=pdf, gradients=gradients,
                dl_dinput=dl_dx,
            )  # fmt: skip
            if isinstance(found, float):
                value = x.new_tensor(found)
            else:  # on a GPU, how many partial sums there are
                sums = tensor_of(self._engine.partial_sums(found)[:found])
                value = sums.sum() / max(targets.numel(), 1)
            dl_dparams = self._gradient_tensor(gradients, params)
            return value, self._tensor(dl_dx, x), dl_dparams

    def _arrays(self, x: torch.Tensor, params: torch.Tensor) -> tuple[Any, Any]:
        """Inputs and parameters as the engines read them."""
        if params.shape != (self.n_params,):
            raise ValueError(f"params: expected shape [{self.n_params}], got {list(params.shape)}")
        inputs = self.target.matrix(array_of(x), "inputs", self.n_inputs)
        vector = self.target.vector(array_of(params), "params", self.n_params)
        return inputs, self._parameters.converted(vector)

    def _gradients(self, wanted: bool) -> Gradients | None:
        if not wanted or self.n_params == 0:
            return None
        return self.target.gradients(self.n_params, self._n_matrix_params)

    def _tensor(self, array: Any, like: torch.Tensor) -> torch.Tensor:
        return like.new_empty(0) if array is None else tensor_of(array)

    def _gradient_tensor(self, gradients, like: torch.Tensor) -> torch.Tensor:
        return self._tensor(gradients and gradients.flat, like)


@lru_cache(maxsize=MOST_EVALUATORS)
def evaluator_for(description: str, device: torch.device, precision: str) -> Evaluator:
    """The evaluator that serves all equal models on a device."""
    return Evaluator(description, target_of(device, precision))


def free_temporary_memory() -> None:
    """Give back the memory that lies between the kernels of all models; it is made anew when used.

    Tensors, parameters among them, are not touched. Without a GPU there is nothing to give back.
    """
    evaluator_for.cache_clear()
    for gpu in _gpus:
        gpu.synchronize()
        gpu.trim()
