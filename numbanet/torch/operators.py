"""The operators that PyTorch sees: forward, backward and double backward of a model.

Each is opaque to torch.compile, which does not break its graph for them. A model is named by its
description, the text that evaluator.py explains, and by the precision of its kernels on a GPU.
"""

import torch
from torch import Tensor
from torch.library import custom_op

from numbanet.torch.evaluator import evaluator_for, n_params, sizes


@custom_op("numbanet::forward", mutates_args=())
def forward(x: Tensor, params: Tensor, description: str, precision: str) -> Tensor:
    """Outputs [n, n_output_dims] from inputs [n, n_input_dims]; all is float32."""
    return evaluator_for(description, x.device, precision).forward(x, params)


@custom_op("numbanet::backward", mutates_args=())
def backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, description: str, precision: str, wants_x: bool,
    wants_params: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of x and params, given that of the outputs; empty where not wanted."""
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.backward(dl_dy, x, params, wants_x, wants_params)


@custom_op("numbanet::double_backward", mutates_args=())
def double_backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, dl_ddx: Tensor, description: str, precision: str,
    wants_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of dl_dy, x and params, given that of what `backward` returned for x."""
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.double_backward(dl_dy, x, params, dl_ddx, wants_params)


# What they return, for PyTorch to plan with


def _vector(params, description, wanted):
    return torch.empty_like(params) if wanted and n_params(description) else params.new_empty(0)


@forward.register_fake
def _(x, params, description, precision):
    return x.new_empty(x.shape[0], sizes(description)[1])


@backward.register_fake
def _(dl_dy, x, params, description, precision, wants_x, wants_params):
    dl_dx = torch.empty_like(x) if wants_x else x.new_empty(0)
    return dl_dx, _vector(params, description, wants_params)


@double_backward.register_fake
def _(dl_dy, x, params, dl_ddx, description, precision, wants_params):
    dl_dparams = _vector(params, description, wants_params)
    return torch.empty_like(dl_dy), torch.empty_like(x), dl_dparams


# Derivatives


def _keep_forward(ctx, inputs, output):
    x, params, *ctx.model = inputs
    ctx.save_for_backward(x, params)
    ctx.set_materialize_grads(False)


def _forward_backward(ctx, dl_dy):
    if dl_dy is None:
        return None, None, None, None
    wants_x, wants_params, *_ = ctx.needs_input_grad
    dl_dx, dl_dparams = backward(dl_dy, *ctx.saved_tensors, *ctx.model, wants_x, wants_params)
    return dl_dx if wants_x else None, dl_dparams if wants_params else None, None, None


def _keep_backward(ctx, inputs, output):
    dl_dy, x, params, *ctx.model, _, _ = inputs
    ctx.save_for_backward(dl_dy, x, params)
    ctx.set_materialize_grads(False)


def _backward_backward(ctx, dl_ddx, dl_ddparams):
    nothing = (None,) * 4
    if dl_ddparams is not None:
        raise NotImplementedError(
            "the gradient of the parameters cannot be differentiated once more, only that of the "
            "inputs can; detach it"
        )
    if dl_ddx is None:
        return None, None, None, *nothing
    dl_dy, x, params = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    found = double_backward(dl_dy, x, params, dl_ddx, *ctx.model, wanted[2])
    return *(value if want else None for value, want in zip(found, wanted, strict=True)), *nothing


forward.register_autograd(_forward_backward, setup_context=_keep_forward)
backward.register_autograd(_backward_backward, setup_context=_keep_backward)
