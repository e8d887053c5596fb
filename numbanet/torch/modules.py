"""Modules of tinycudann: an encoding with a network, a network, an encoding.

Constructors, attributes and the layout of `params` are tinycudann's; docs/migrating.md lists what
differs.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from numbanet import registry
from numbanet.caller import warn_caller
from numbanet.create import create_loss
from numbanet.derivatives import OutputDerivatives
from numbanet.torch import descriptions, passes
from numbanet.torch.bindings import NativeModule
from numbanet.torch.levels import with_level
from numbanet.torch.parts import ModuleOfParts
from numbanet.torch.precisions import (
    allowed_dtype,
    default_device,
    default_dtype,
    default_loss_scale,
    precision_of,
)


class Module(ModuleOfParts):
    """Base of the modules: one flat vector of parameters, float32 [n_params].

    Args:
        description: of the model, see descriptions.py.
        seed: of the initial parameters, which are tinycudann's for the same seed.
        dtype: of the outputs and, on a GPU, of the parameters that the kernels read; None for
            float16 on a GPU and float32 on the CPU, unless NUMBANET_TORCH_DTYPE or
            install_as_tinycudann says otherwise.
        device: where the parameters lie; None for PyTorch's current GPU, or the CPU without one.

    Raises:
        ValueError: the seed or the dtype cannot be used.
    """

    def __init__(self, description: str, seed: int, dtype: torch.dtype | None, device: Any):
        super().__init__()
        device = default_device() if device is None else torch.device(device)
        dtype = default_dtype(device) if dtype is None else allowed_dtype(dtype)
        self.native_tcnn_module = NativeModule(description, dtype)
        self.dtype = dtype
        self.seed = seed
        self.n_input_dims, self.n_output_dims = descriptions.sizes(description)
        self.loss_scale = default_loss_scale(precision_of(dtype))
        initial = torch.from_numpy(descriptions.initial_params(description, seed))
        self.params = torch.nn.Parameter(initial.to(device))

    def forward(self, x: torch.Tensor, max_level: Any = None) -> torch.Tensor:
        """Evaluate the model: [n, n_input_dims] -> [n, n_output_dims] of type `dtype`.

        Args:
            x: any real numbers, any batch size; computed with as float32. Grids cover [0, 1].
                Inputs on another device are moved to that of the parameters, with a warning.
            max_level: not one of tinycudann's modules: a number from 0 to 1, or a tensor of one for
                each sample [n]. Of grids of L levels those up to number max_level L are read;
                features of others are zeros, and their entries get no gradient.

        Raises:
            TypeError: there is a max_level, and no grid.
            ValueError: the inputs are no tensor, or have another shape, or max_level is invalid.
        """
        params, native = self.params, self.native_tcnn_module
        x = self._inputs(x, "inputs", self.n_input_dims, params.device)
        description = native.description
        if max_level is not None:
            x, description = with_level(x, max_level, description)
        return passes.forward(x, params, description, native.precision)

    def _inputs(
        self, x: torch.Tensor, name: str, n_columns: int, device: torch.device
    ) -> torch.Tensor:
        """Batch as the operators take it: float32, on the device of the parameters."""
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"{name}: expected a tensor, got {type(x).__name__}")
        if x.is_complex():
            raise ValueError(f"{name}: expected real numbers, got {x.dtype}; use x.real, or abs")
        if not torch.jit.is_tracing() and (x.dim() != 2 or x.shape[1] != n_columns):
            expected = f"[batch, {n_columns}]"
            hint = "" if x.dim() == 2 else f"; reshape it to {expected}"
            raise ValueError(f"{name}: expected shape {expected}, got {list(x.shape)}{hint}")
        if x.device != device:
            warn_caller(
                f"{name} on {x.device} are moved to {device}, where the parameters of "
                f"{type(self).__name__} are; move one of them before"
            )
            x = x.to(device)
        return x if x.dtype is torch.float32 else x.to(torch.float32)

    def derivatives(
        self,
        x: torch.Tensor,
        order: int = 2,
        *,
        wanted: str | None = None,
        max_level: Any = None,
    ) -> OutputDerivatives:
        """Outputs with their derivatives by the inputs, float32 tensors.

        Not one of tinycudann's. They can be differentiated once for the parameters: a loss of them,
        such as the residual of a differential equation, is trained like any other. Faster than
        torch.autograd.grad, which takes the first derivatives only: second ones of the inputs have
        no gradient there.

        Args:
            x: [n, n_input_dims]; must not require a gradient.
            order: 1 for the Jacobian alone, 2 for second derivatives too.
            wanted: of these the "laplacian" (which is meant by None), the "diagonal", that is
                d2y/dx_d^2 for each input, or the "hessian".
            max_level: see Module.forward.

        Returns:
            `values` [n, n_output_dims], `jacobian` [n, n_output_dims, n_input_dims], and what is
            wanted by its name.

        Raises:
            TypeError: a component has no such derivatives; the message names those that have. Or
                there is a max_level, and no grid.
            ValueError: no tensor or a wrong shape is given, x requires a gradient, or an option or
                max_level is not allowed.
            RuntimeError: PyTorch is tracing or transforming the call; torch.compile leaves it out.
        """
        params, description = self.params, self.native_tcnn_module.description
        x = self._inputs(x, "x", self.n_input_dims, params.device)
        from numbanet.torch import jets  # which imports PyTorch's compiler

        return jets.derivatives(x, params, description, order, wanted, max_level)

    @property
    def jit_fusion(self) -> bool:
        """Switch of tinycudann's, without effect: kernels are fused where they can be."""
        return self.native_tcnn_module.jit_fusion

    @jit_fusion.setter
    def jit_fusion(self, value: bool) -> None:
        self.native_tcnn_module.jit_fusion = bool(value)

    def extra_repr(self) -> str:
        hyperparams = self.native_tcnn_module.hyperparams()
        return (
            f"n_input_dims={self.n_input_dims}, n_output_dims={self.n_output_dims}, "
            f"seed={self.seed}, dtype={self.dtype}, hyperparams={hyperparams}"
        )


class TrainableModule(Module):
    """Module with a network."""

    def loss(
        self,
        x: torch.Tensor,
        targets: torch.Tensor,
        loss: str | Mapping[str, Any] = "RelativeL2",
        pdf: torch.Tensor | None = None,
        max_level: Any = None,
    ) -> torch.Tensor:
        """Loss of a batch, [], computed together with its gradients in one pass.

        Not one of tinycudann's. Faster than evaluating the module and comparing, because nothing
        has to be computed anew for the backward pass. It can be differentiated once.

        Args:
            x: [n, n_input_dims].
            targets: [n, n_output_dims], constants.
            loss: the otype of one of numbanet's losses, or its JSON config; that as text where
                torch.compile is to make one graph of the program.
            pdf: the density with which each target was sampled, [n, n_output_dims].
            max_level: see Module.forward.

        Returns:
            The mean over the batch and the output dimensions.

        Raises:
            ConfigError: the config cannot be used.
            ValueError: no tensor or a wrong shape is given, or targets or pdf require a gradient.
        """
        config = loss
        if not isinstance(loss, str):
            config = json.dumps(registry.to_config(create_loss(loss)))
        params, native = self.params, self.native_tcnn_module
        x = self._inputs(x, "x", self.n_input_dims, params.device)
        given = {"targets": targets} if pdf is None else {"targets": targets, "pdf": pdf}
        for name, tensor in given.items():
            given[name] = self._inputs(tensor, name, self.n_output_dims, params.device)
            if tensor.requires_grad:
                raise ValueError(f"{name}: must not require a gradient; detach it")
            if len(tensor) != len(x):
                raise ValueError(f"{name}: expected {len(x)} rows as x has, got {len(tensor)}")
        x, description = with_level(x, max_level, native.description)
        return passes.loss(
            x, params, given["targets"], given.get("pdf"), description, native.precision, config
        )


class NetworkWithInputEncoding(TrainableModule):
    """An encoding and the network that reads it, evaluated together.

    Args:
        n_input_dims: width of the inputs.
        n_output_dims: width of the outputs.
        encoding_config: JSON config of the encoding.
        network_config: JSON config of the network.
        seed, dtype, device: see Module.

    Raises:
        ConfigError: a config cannot be used; the message names the option.
        ValueError: another argument cannot.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        encoding_config: Mapping[str, Any],
        network_config: Mapping[str, Any],
        seed: int = 1337,
        *,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ):
        description = descriptions.describe(
            n_input_dims, n_output_dims, encoding_config, network_config
        )
        super().__init__(description, seed, dtype, device)
        self.encoding_config, self.network_config = encoding_config, network_config


class Network(TrainableModule):
    """A network by itself; its inputs are padded with ones to a multiple of 16.

    Arguments and errors are those of NetworkWithInputEncoding.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_output_dims: int,
        network_config: Mapping[str, Any],
        seed: int = 1337,
        *,
        dtype: torch.dtype | None = None,
        device: Any = None,
    ):
        description = descriptions.describe(
            n_input_dims, n_output_dims, descriptions.ABSENT, network_config
        )
        super().__init__(description, seed, dtype, device)
        self.network_config = network_config


class Encoding(Module):
    """An encoding by itself, without padding.

    Arguments and errors are those of NetworkWithInputEncoding.
    """

    def __init__(
        self,
        n_input_dims: int,
        encoding_config: Mapping[str, Any],
        seed: int = 1337,
        dtype: torch.dtype | None = None,
        *,
        device: Any = None,
    ):
        super().__init__(
            descriptions.describe(n_input_dims, descriptions.ABSENT, encoding_config, None),
            seed,
            dtype,
            device,
        )
        self.encoding_config = encoding_config
        self.precision = precision_of(self.dtype)
