"""Evaluation of models on tensors: the engines of a target, without parameters of their own.

Everything is a function of a model's description, of the inputs and of the parameters,
so that nothing has to be kept between a forward and a backward pass. All the same, what is made in
the one and read in the other is kept: on the CPU the features of the encoding, because to read them
is faster than to encode again, and on a GPU the parameters in halves.
"""

from functools import cached_property, lru_cache
from typing import Any

import torch

from numbanet.encoded_network import EncodedNetwork
from numbanet.engine import Batch, Gradients
from numbanet.losses.base import AbstractLoss
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.torch.descriptions import components, n_kept, n_params, quantized, sizes
from numbanet.torch.jet_evaluator import JetEvaluator
from numbanet.torch.tensors import DeviceTensors, HostTensors

MOST_EVALUATORS = 64  # kept
# Of hidden layers and features, for which both passes together would otherwise wait for memory.
# A large part of a last-level cache, and the most that a forward pass may hold until the backward.
MOST_KEPT_BYTES = 1 << 24


def target_of(device: torch.device, precision: str) -> AbstractTarget:
    """Target for tensors of a device; the CPU has float32 only.

    Raises:
        ValueError: it is neither the CPU nor a CUDA device.
        RuntimeError: the GPU cannot be used; the message says why.
    """
    if device.type == "cpu":
        return target_for("cpu")
    if device.type == "cuda":
        from numbanet.torch.device import tensor_device  # which needs NVIDIA's driver

        return target_for(tensor_device(device.index), precision)
    raise ValueError(f"device {str(device)!r} is not supported; move the module to 'cpu' or 'cuda'")


class Evaluator:
    """Evaluator of a model for tensors of one device; inputs and gradients are float32.

    Args:
        description: see descriptions.py.
        target: of its engines.
        dtype: of the outputs.
    """

    def __init__(self, description: str, target: AbstractTarget, dtype: torch.dtype):
        self._description = description
        encoding, network = components(description)
        self.n_inputs, self.n_outputs = sizes(description)
        self.n_params = n_params(description)
        self.target = target
        self._network = network
        self._n_kept = n_kept(description, target.name)
        self._n_matrix_params = 0 if network is None else network.n_params
        if network is None:
            self._engine = target.encoding_engine(encoding)
            self._evaluate = self._engine.forward
        else:
            padded = encoding.padded(network.n_input_dims)
            self._engine = target.network_engine(EncodedNetwork(padded, network))
            self._evaluate = self._engine.inference
        in_few_bits = quantized(description)
        self._tensors, self._dtype, self._written = HostTensors(in_few_bits), dtype, torch.float32
        self._direct = None
        if target.name != "cpu":
            boundary = self._n_matrix_params
            self._tensors = DeviceTensors(target.device, target.precision, boundary, in_few_bits)
            if network is not None:  # whose kernels convert
                self._written = dtype
                if not in_few_bits:
                    self._direct = self._directly(boundary)
        self._passes = self._tensors.recurring(self._engine)

    def _directly(self, boundary: int) -> Any:
        """DirectInference of the model."""
        from numbanet.torch.direct import DirectInference

        sizes = self.n_inputs, self.n_outputs, self.n_params
        return DirectInference(self.target.device, self._engine, sizes, boundary, self._dtype)

    @cached_property
    def jets(self) -> JetEvaluator:
        """Evaluator of derivatives by the inputs; its target has float32."""
        return JetEvaluator(self._description, self.target)

    def forward(
        self, x: torch.Tensor, params: torch.Tensor, keeps: bool, *, hidden: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Outputs [n, n_outputs] for inputs [n, n_inputs], and state for `backward`.

        That is None unless it `keeps` something: on the CPU the features [n, n_kept], and `hidden`
        layers with them up to MOST_KEPT_BYTES, elsewhere the parameters as the kernels read them,
        where these are of another type.
        """
        if not keeps and self._direct is not None:
            y = self._direct(x, params)
            if y is not None:
                return y, None
        tensors, kept = self._tensors, None
        x, *read = self._given(x, params)
        y = tensors.empty(x.shape[0], self.n_outputs, dtype=self._written)
        if keeps and self._n_kept:
            n, width = x.shape[0], self._n_kept
            if hidden and 4 * n * self._engine.n_kept <= MOST_KEPT_BYTES:
                width = self._engine.n_kept
            kept = tensors.state(n, width)
        tensors.run(self._passes, self._forward, (), x, *read, y, kept)
        if keeps and kept is None and read[0].dtype != params.dtype:
            kept = read[0]
        return y if y.dtype is self._dtype else y.to(self._dtype), kept

    def _forward(self, inputs, params, outputs, features) -> None:
        """`forward` with arrays of the target."""
        if features is None:
            self._evaluate(inputs, params, outputs)
        else:
            self._engine.forward(inputs, params, outputs, features)

    def backward(
        self, dl_dy: torch.Tensor, x: torch.Tensor, params: torch.Tensor,
        kept: torch.Tensor | None, wants_x: bool, wants_params: bool,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """Gradients of inputs and parameters, each None if it is not wanted.

        `kept` is from `forward`; what is absent or empty is computed anew.
        """
        features = None
        if kept is not None and kept.numel():
            if self._n_kept:
                features = kept
            else:
                params = kept
        x, *read = self._given(x, params, is_read=params is kept)
        stored = self._written if dl_dy.dtype is self._written else torch.float32
        dl_dy = self._matrix(dl_dy, "dl_dy", self.n_outputs, x.shape[0], stored)
        dl_dx, dl_dparams = self._wanted(x, wants_x, wants_params)
        given = x, *read, dl_dy, features, dl_dx, dl_dparams
        self._tensors.run(self._passes, self._backward, (stored,), *given)
        return dl_dx, dl_dparams

    def _backward(self, stored, inputs, params, dl_dy, features, dl_dx, dl_dparams) -> None:
        """`backward` with arrays of the target."""
        gradients = self._gradients_in(dl_dparams)
        if self._network is None:
            self._engine.backward(inputs, params, dl_dy, gradients, dl_dx)
            return
        batch = Batch(inputs, external_dl_dy=dl_dy, features=features)
        overwrite = gradients is not None
        self._engine.forward_backward(batch, params, None, gradients, dl_dx, overwrite=overwrite)

    def double_backward(
        self, dl_dy: torch.Tensor, x: torch.Tensor, params: torch.Tensor, dl_ddx: torch.Tensor,
        wants_params: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """Gradients of dl_dy, inputs and parameters, given that of `backward`'s dl_dx."""
        for activation in () if self._network is None else self._network.activations:
            if activation.second is None:
                raise TypeError(
                    f"activation {activation.name} has no `second`, the second derivative that "
                    "create_graph=True needs"
                )
        tensors, dtype = self._tensors, dl_dy.dtype
        x, *read = self._given(x, params)
        dl_dy = self._matrix(dl_dy, "dl_dy", self.n_outputs, len(x))
        dl_ddx = self._matrix(dl_ddx, "dl_ddx", self.n_inputs, len(x))
        dl_dx, dl_dparams = self._wanted(x, True, wants_params)
        dl_ddy = tensors.empty(*dl_dy.shape)
        given = x, *read, dl_dy, dl_ddx, dl_ddy, dl_dx, dl_dparams
        tensors.run(self._passes, self._double_backward, (), *given)
        return dl_ddy.to(dtype), dl_dx, dl_dparams

    def _double_backward(self, inputs, params, dl_dy, dl_ddx, dl_ddy, dl_dx, dl_dparams) -> None:
        """`double_backward` with arrays of the target."""
        gradients = self._gradients_in(dl_dparams)
        if gradients is not None:
            self.target.set_zero(gradients.flat)
        self._engine.double_backward(inputs, params, dl_dy, dl_ddx, gradients, (dl_ddy, dl_dx))

    def loss(
        self, x: torch.Tensor, params: torch.Tensor, targets: torch.Tensor,
        pdf: torch.Tensor | None, loss: AbstractLoss, wants_x: bool, wants_params: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:  # fmt: skip
        """Mean loss [] and its gradients, as `backward` returns them, in one pass.

        Raises:
            ConfigError: the loss cannot take so many outputs.
        """
        loss.row(self.n_outputs, pdf is not None)  # which raises it
        x, *read = self._given(x, params)
        targets = self._matrix(targets, "targets", self.n_outputs, len(x))
        if pdf is not None:
            pdf = self._matrix(pdf, "pdf", self.n_outputs, len(x))
        dl_dx, dl_dparams = self._wanted(x, wants_x, wants_params)
        value = self._tensors.empty()
        given = x, *read, targets, pdf, value, dl_dx, dl_dparams
        self._tensors.run(self._passes, self._loss, (loss,), *given)
        return value, dl_dx, dl_dparams

    def _loss(self, loss, inputs, params, targets, pdf, value, dl_dx, dl_dparams) -> None:
        """`loss` with arrays of the target."""
        gradients, batch = self._gradients_in(dl_dparams), Batch(inputs, targets, pdf)
        overwrite = gradients is not None
        found = self._engine.forward_backward(
            batch, params, loss, gradients, dl_dx, overwrite=overwrite
        )
        self.target.write_mean(found, value)

    def _given(
        self, x: torch.Tensor, params: torch.Tensor, is_read: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Inputs and parameters as the engines read them, and the tensors to convert to these.

        Args:
            is_read: whether the parameters are converted already.
        """
        if params.shape != (self.n_params,):
            raise ValueError(f"params: expected shape [{self.n_params}], got {list(params.shape)}")
        if params.device != x.device:
            raise ValueError(
                f"params: expected them on {x.device} as the inputs, got {params.device}"
            )
        read = self._tensors.read(params, is_read)
        return self._matrix(x, "inputs", self.n_inputs), *read

    def _matrix(
        self, tensor: torch.Tensor, name: str, n_columns: int, n_rows: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:  # fmt: skip
        """Tensor in C order and of that dtype."""
        shape = tensor.shape
        if len(shape) != 2 or shape[1] != n_columns or n_rows not in (None, shape[0]):
            expected = f"[{'batch' if n_rows is None else n_rows}, {n_columns}]"
            raise ValueError(f"{name}: expected shape {expected}, got {list(shape)}")
        if tensor.dtype is dtype and tensor.is_contiguous():
            return tensor
        return tensor.to(dtype).contiguous()

    def _wanted(self, x, wants_x: bool, wants_params: bool):
        """Memory for the gradients of inputs and parameters; None where they are not wanted."""
        dl_dx = self._tensors.empty(*x.shape) if wants_x else None
        if not wants_params:
            return dl_dx, None
        return dl_dx, self._tensors.gradients(self.n_params)

    def _gradients_in(self, flat: Any) -> Gradients | None:
        """Gradients for an engine, in an array of the target; an encoding adds to zeros."""
        if flat is None or self.n_params == 0:
            return None
        gradients = self.target.gradients_in(flat, self._n_matrix_params)
        if self._network is None:
            self.target.set_zero(flat)
        return gradients


@lru_cache(maxsize=MOST_EVALUATORS)
def evaluator_for(description: str, device: torch.device, precision: str) -> Evaluator:
    """Evaluator of all equal models on a device."""
    return Evaluator(description, target_of(device, precision), getattr(torch, precision))


def free_temporary_memory() -> None:
    """Free all evaluators, which are made again when needed.

    On a CPU that gives their memory back. On a GPU there is none: what lies between kernels is
    PyTorch's again when a call returns, and torch.cuda.empty_cache() gives PyTorch's back.
    """
    evaluator_for.cache_clear()
