"""Layer below the modules that some programs call: tinycudann's `_C`."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import torch
from torch.nn import functional

from numbanet import registry
from numbanet.networks.base import ALIGNMENT, next_multiple
from numbanet.torch import descriptions, evaluator, passes, precisions
from numbanet.torch.descriptions import ABSENT, describe
from numbanet.torch.precisions import (
    Precision,
    default_device,
    dtype_of,
    precision_of,
    preferred_precision,
)

free_temporary_memory = evaluator.free_temporary_memory
default_loss_scale = precisions.default_loss_scale


class LogSeverity(IntEnum):
    """Severity of log messages, of which there are none; see set_log_callback."""

    Info = 0
    Debug = 1
    Warning = 2
    Error = 3
    Success = 4


def batch_size_granularity() -> int:
    """Number that batch sizes must be a multiple of: any size is allowed."""
    return 1


def has_networks() -> bool:
    """Whether there are networks beside the encodings: always."""
    return True


def supports_jit_fusion(device: int = -1) -> bool:
    """Whether kernels can be fused: on a GPU of compute capability 8.0 or later.

    Args:
        device: its number; -1 for PyTorch's current one.
    """
    if not torch.cuda.is_available():
        return False
    number = torch.cuda.current_device() if device < 0 else device
    return torch.cuda.get_device_capability(number) >= (8, 0)


def rtc_set_cache_dir(path: str) -> None:
    """No operation: NUMBANET_CACHE_DIR sets the directory of compiled kernels."""


def rtc_set_include_dir(path: str) -> None:
    """No operation: kernels include no files."""


def set_log_callback(callback: Any) -> None:
    """No operation: messages are Python's warnings and exceptions."""


class NativeModule:
    """Model without parameters of its own: passes from tensors to tensors.

    Outputs are padded to n_output_dims(), which is a multiple of 16 where there is a network.

    Args:
        description: see descriptions.py.
        dtype: of the outputs and, on a GPU, of the parameters that the kernels read.
    """

    def __init__(self, description: str, dtype: torch.dtype):
        self.description = description
        self.jit_fusion = False
        self._dtype = dtype
        self.precision = str(dtype).removeprefix("torch.")
        self._n_inputs, self._width = descriptions.sizes(description)

    def n_input_dims(self) -> int:
        """Width of the inputs."""
        return self._n_inputs

    def n_output_dims(self) -> int:
        """Width of the padded outputs."""
        _, network = descriptions.components(self.description)
        return self._width if network is None else next_multiple(self._width, ALIGNMENT)

    def n_params(self) -> int:
        """Length of the parameter vector."""
        return descriptions.n_params(self.description)

    def param_precision(self) -> Precision:
        """Precision of the parameters that the kernels read on a GPU."""
        return precision_of(self._dtype)

    def output_precision(self) -> Precision:
        """Precision of the outputs."""
        return precision_of(self._dtype)

    def name(self) -> str:
        """Otype of the model."""
        return self.hyperparams()["otype"]

    def hyperparams(self) -> dict[str, Any]:
        """JSON config of the model, with every option written out."""
        encoding, network = (
            part and registry.to_config(part) for part in descriptions.components(self.description)
        )
        if network is None:
            return encoding
        return {"otype": "NetworkWithInputEncoding", "encoding": encoding, "network": network}

    def initial_params(self, seed: int) -> torch.Tensor:
        """Initial parameters for a seed, float32 [n_params], on the device of new modules."""
        initial = descriptions.initial_params(self.description, seed)
        return torch.from_numpy(initial).to(default_device())

    def fwd(self, x: torch.Tensor, params: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """Context for `bwd`, None if nothing requires a gradient, and the padded outputs."""
        with torch.no_grad():
            y = self.outputs(x, params)
        return (x.requires_grad, params.requires_grad) if needs_gradient(x, params) else None, y

    def outputs(self, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        """Padded outputs, which autograd can differentiate."""
        return self._padded(self.evaluate(x.float(), params))

    def evaluate(self, x: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        """Outputs without padding, which autograd can differentiate."""
        return passes.forward(x, params, self.description, self.precision)

    def bwd(self, context, x, params, y, dl_dy) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Gradients of inputs and parameters, each None if it was not required.

        Raises:
            RuntimeError: there is no context.
        """
        check_context(context)
        with torch.no_grad():
            dl_dx, dl_dparams = passes.backward(
                self._unpadded(dl_dy), x.float(), params, None, self.description, self.precision,
                *context,
            )  # fmt: skip
        return dl_dx, None if dl_dparams is None else dl_dparams.to(params.dtype)

    def bwd_bwd_input(self, context, x, params, dl_ddx, dl_dy) -> tuple[torch.Tensor | None, ...]:
        """Gradients of dl_dy, the parameters and the inputs, given that of `bwd`'s dl_dx.

        Raises:
            RuntimeError: there is no context.
        """
        check_context(context)
        with torch.no_grad():
            dl_ddy, dl_dx, dl_dparams = passes.double_backward(
                self._unpadded(dl_dy), x.float(), params, dl_ddx.float(),
                self.description, self.precision, context[1],
            )  # fmt: skip
        dl_ddy = self._padded(dl_ddy.to(dl_dy.dtype))
        return dl_ddy, dl_dparams.to(params.dtype) if context[1] else None, dl_dx

    def _padded(self, y: torch.Tensor) -> torch.Tensor:
        return functional.pad(y, (0, self.n_output_dims() - self._width))

    def _unpadded(self, dl_dy: torch.Tensor) -> torch.Tensor:
        return dl_dy[:, : self._width].float()


def needs_gradient(*tensors: torch.Tensor) -> bool:
    """Whether any of them requires a gradient."""
    return any(tensor.requires_grad for tensor in tensors)


def check_context(context: Any) -> None:
    """Raise RuntimeError if there is no context."""
    if context is None:
        raise RuntimeError(
            "context: None, because neither inputs nor parameters required a gradient in fwd; set "
            "requires_grad on one of them"
        )


def create_network_with_input_encoding(
    n_input_dims: int,
    n_output_dims: int,
    encoding_config: Mapping[str, Any],
    network_config: Mapping[str, Any],
) -> NativeModule:
    """Create an encoding and its network; raises as numbanet.torch.NetworkWithInputEncoding."""
    description = describe(n_input_dims, n_output_dims, encoding_config, network_config)
    return NativeModule(description, dtype_of(preferred_precision()))


def create_network(
    n_input_dims: int, n_output_dims: int, network_config: Mapping[str, Any]
) -> NativeModule:
    """Create a network by itself; raises as numbanet.torch.Network."""
    description = describe(n_input_dims, n_output_dims, ABSENT, network_config)
    return NativeModule(description, dtype_of(preferred_precision()))


def create_encoding(
    n_input_dims: int, encoding_config: Mapping[str, Any], precision: Precision
) -> NativeModule:
    """Create an encoding by itself; raises as numbanet.torch.Encoding."""
    description = describe(n_input_dims, ABSENT, encoding_config, None)
    return NativeModule(description, dtype_of(precision))
