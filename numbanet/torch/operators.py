"""The operators that PyTorch sees: forward, backward and double backward of a model.

Each is opaque to torch.compile, which does not break its graph for them. A model is named by its
description, the text that evaluator.py explains, and by the precision of its kernels on a GPU.
"""

import json
from functools import cache
from inspect import signature

import torch
from torch import Tensor
from torch.library import custom_op

from numbanet.create import create_loss
from numbanet.losses.base import AbstractLoss
from numbanet.torch.evaluator import evaluator_for, n_kept, n_params, sizes

OPTIONS = {"mutates_args": ()}
# They allocate, and compile when they are first called: PyTorch is not to capture them in graphs.
# Older versions have no way to be told.
if "tags" in signature(custom_op).parameters and hasattr(torch.Tag, "cudagraph_unsafe"):
    OPTIONS["tags"] = (torch.Tag.cudagraph_unsafe,)


@custom_op("numbanet::forward", **OPTIONS)
def forward(
    x: Tensor, params: Tensor, description: str, precision: str, keeps: bool
) -> tuple[Tensor, Tensor]:
    """Outputs [n, n_output_dims] from inputs [n, n_input_dims]; all is float32.

    The second tensor is what `backward` may be given, see Evaluator; empty unless `keeps`.
    """
    return evaluator_for(description, x.device, precision).forward(x, params, keeps)


@custom_op("numbanet::backward", **OPTIONS)
def backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, kept: Tensor, description: str, precision: str,
    wants_x: bool, wants_params: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The gradients of x and params, given that of the outputs; empty where not wanted."""
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.backward(dl_dy, x, params, kept, wants_x, wants_params)


@custom_op("numbanet::double_backward", **OPTIONS)
def double_backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, dl_ddx: Tensor, description: str, precision: str,
    wants_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of dl_dy, x and params, given that of what `backward` returned for x."""
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.double_backward(dl_dy, x, params, dl_ddx, wants_params)


@custom_op("numbanet::loss", **OPTIONS)
def loss(
    x: Tensor, params: Tensor, targets: Tensor, pdf: Tensor | None, description: str,
    precision: str, config: str, wants_x: bool, wants_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The mean loss [] and, where wanted, its gradients with respect to x and params."""
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.loss(x, params, targets, pdf, find_loss(config), wants_x, wants_params)


@cache
def find_loss(config: str) -> AbstractLoss:
    """The loss of that otype, or that a JSON config describes."""
    return create_loss(json.loads(config) if config.startswith("{") else {"otype": config})


# What they return, for PyTorch to plan with


def _vector(params, description, wanted):
    return torch.empty_like(params) if wanted and n_params(description) else params.new_empty(0)


@forward.register_fake
def _(x, params, description, precision, keeps):
    width = n_kept(description, x.device.type) if keeps else 0
    y = x.new_empty(x.shape[0], sizes(description)[1])
    return y, x.new_empty(x.shape[0], width)


@backward.register_fake
def _(dl_dy, x, params, kept, description, precision, wants_x, wants_params):
    dl_dx = x.new_empty(x.shape) if wants_x else x.new_empty(0)
    return dl_dx, _vector(params, description, wants_params)


@double_backward.register_fake
def _(dl_dy, x, params, dl_ddx, description, precision, wants_params):
    dl_dparams = _vector(params, description, wants_params)
    return dl_dy.new_empty(dl_dy.shape), x.new_empty(x.shape), dl_dparams


@loss.register_fake
def _(x, params, targets, pdf, description, precision, config, wants_x, wants_params):
    dl_dx = x.new_empty(x.shape) if wants_x else x.new_empty(0)
    return x.new_empty(()), dl_dx, _vector(params, description, wants_params)


# Derivatives


def _keep_forward(ctx, inputs, output):
    x, params, *ctx.model, _ = inputs
    ctx.save_for_backward(x, params, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _forward_backward(ctx, dl_dy, _):
    nothing = (None,) * 3
    if dl_dy is None:
        return None, None, *nothing
    wants_x, wants_params, *_ = ctx.needs_input_grad
    dl_dx, dl_dparams = backward(dl_dy, *ctx.saved_tensors, *ctx.model, wants_x, wants_params)
    return dl_dx if wants_x else None, dl_dparams if wants_params else None, *nothing


def _keep_backward(ctx, inputs, output):
    dl_dy, x, params, _, *ctx.model, _, _ = inputs
    ctx.save_for_backward(dl_dy, x, params)
    ctx.set_materialize_grads(False)


def _backward_backward(ctx, dl_ddx, dl_ddparams):
    nothing = (None,) * 5
    if dl_ddparams is not None:
        raise RuntimeError(
            "the gradient of the parameters cannot be differentiated once more, only that of the "
            "inputs can; detach it"
        )
    if dl_ddx is None:
        return None, None, None, *nothing
    dl_dy, x, params = ctx.saved_tensors
    wanted = ctx.needs_input_grad[:3]
    found = double_backward(dl_dy, x, params, dl_ddx, *ctx.model, wanted[2])
    return *(value if want else None for value, want in zip(found, wanted, strict=True)), *nothing


def _keep_nothing(ctx, inputs, output):
    ctx.set_materialize_grads(False)


def _double_backward_backward(ctx, *of_gradients):
    if any(gradient is not None for gradient in of_gradients):
        raise RuntimeError(
            "second derivatives cannot be differentiated once more; leave create_graph=True out "
            "where they are computed, or detach them"
        )
    return (None,) * 7


def _keep_loss(ctx, inputs, output):
    _, *gradients = output
    ctx.save_for_backward(*gradients)
    ctx.set_materialize_grads(False)


def _loss_backward(ctx, dl_dvalue, *of_gradients):
    if any(gradient is not None for gradient in of_gradients):
        raise RuntimeError(
            "the gradient of `loss` cannot be differentiated once more; evaluate the model by "
            "itself, with a loss of PyTorch's"
        )
    found = [None, None]
    if dl_dvalue is not None:
        wanted = ctx.needs_input_grad[:2]
        pairs = zip(ctx.saved_tensors, wanted, strict=True)
        found = [dl_dvalue * gradient if want else None for gradient, want in pairs]
    return *found, *(None,) * 7


forward.register_autograd(_forward_backward, setup_context=_keep_forward)
backward.register_autograd(_backward_backward, setup_context=_keep_backward)
double_backward.register_autograd(_double_backward_backward, setup_context=_keep_nothing)
loss.register_autograd(_loss_backward, setup_context=_keep_loss)
