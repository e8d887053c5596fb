"""Operators for PyTorch's compiler: forward, backward and double backward of a model.

Each is opaque to torch.compile, which does not break its graph for them. A model is named by its
description, the text that descriptions.py explains, and by the precision of its kernels on a GPU.
"""

import json
from functools import cache
from inspect import signature

import torch
from torch import Tensor
from torch.library import custom_op

from numbanet.create import create_loss
from numbanet.losses.base import AbstractLoss
from numbanet.torch import derivatives
from numbanet.torch.descriptions import n_kept, sizes
from numbanet.torch.evaluator import evaluator_for

OPTIONS = {"mutates_args": ()}
# They allocate, and compile when they are first called: PyTorch is not to capture them in graphs.
# Older versions have no way to be told.
if "tags" in signature(custom_op).parameters and hasattr(torch.Tag, "cudagraph_unsafe"):
    OPTIONS["tags"] = (torch.Tag.cudagraph_unsafe,)


@custom_op("numbanet::forward", **OPTIONS)
def forward(
    x: Tensor, params: Tensor, description: str, precision: str, keeps: bool
) -> tuple[Tensor, Tensor]:
    """Outputs [n, n_output_dims] of type `precision` from inputs [n, n_input_dims]; else float32.

    The second tensor is what `backward` may be given, see Evaluator; empty unless `keeps`.
    """
    evaluator = evaluator_for(description, x.device, precision)
    y, kept = evaluator.forward(x, params, keeps, hidden=False)  # one shape for any batch size
    return y, x.new_empty(len(x), 0) if kept is None else kept


@custom_op("numbanet::backward", **OPTIONS)
def backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, kept: Tensor, description: str, precision: str,
    wants_x: bool, wants_params: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of x and params, given that of the outputs; empty where not wanted."""
    evaluator = evaluator_for(description, x.device, precision)
    return filled(x, evaluator.backward(dl_dy, x, params, kept, wants_x, wants_params))


@custom_op("numbanet::double_backward", **OPTIONS)
def double_backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, dl_ddx: Tensor, description: str, precision: str,
    wants_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of dl_dy, x and params, given that of `backward`'s gradient of x."""
    evaluator = evaluator_for(description, x.device, precision)
    return filled(x, evaluator.double_backward(dl_dy, x, params, dl_ddx, wants_params))


@custom_op("numbanet::loss", **OPTIONS)
def loss(
    x: Tensor, params: Tensor, targets: Tensor, pdf: Tensor | None, description: str,
    precision: str, config: str, wants_x: bool, wants_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Mean loss [] and, where wanted, its gradients with respect to x and params."""
    evaluator = evaluator_for(description, x.device, precision)
    wanted = wants_x, wants_params
    return filled(x, evaluator.loss(x, params, targets, pdf, find_loss(config), *wanted))


def filled(like: Tensor, results: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Results of an operator, with empty tensors where nothing is wanted."""
    return tuple(like.new_empty(0) if each is None else each for each in results)


@cache
def find_loss(config: str) -> AbstractLoss:
    """Loss of an otype or of a JSON config."""
    return create_loss(json.loads(config) if config.startswith("{") else {"otype": config})


# Shapes and dtypes of their results, for PyTorch


def _vector(params, description, wanted):
    return torch.empty_like(params) if wanted else params.new_empty(0)


@forward.register_fake
def _(x, params, description, precision, keeps):
    y = x.new_empty(x.shape[0], sizes(description)[1], dtype=getattr(torch, precision))
    dtype = torch.float32 if x.device.type == "cpu" else getattr(torch, precision)
    if keeps and dtype != params.dtype:
        return y, torch.empty_like(params, dtype=dtype)
    return y, x.new_empty(x.shape[0], n_kept(description, x.device.type) if keeps else 0)


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


def keep_forward(ctx, inputs, output):
    derivatives.keep_forward(ctx, inputs, output)
    ctx.mark_non_differentiable(output[1])


forward.register_autograd(derivatives.of_forward(backward), setup_context=keep_forward)
backward.register_autograd(
    derivatives.of_backward(double_backward), setup_context=derivatives.keep_backward
)
double_backward.register_autograd(
    derivatives.of_double_backward, setup_context=derivatives.keep_nothing
)
loss.register_autograd(derivatives.of_loss, setup_context=derivatives.keep_loss)
