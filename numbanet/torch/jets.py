"""Derivatives of a module's outputs by its inputs, as tensors with autograd."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from numbanet.composition import Composition
from numbanet.derivatives import OutputDerivatives, jet_for
from numbanet.torch.descriptions import components
from numbanet.torch.evaluator import evaluator_for
from numbanet.torch.levels import with_level
from numbanet.torch.passes import is_traced


class Jets(Function):
    """Autograd function from inputs and parameters to values, first and second derivatives."""

    @staticmethod
    def forward(ctx, x, params, description, jet):
        ctx.save_for_backward(x, params)
        ctx.set_materialize_grads(False)
        ctx.description, ctx.jet = description, jet
        return evaluator_for(description, x.device, "float32").jets.forward(x, params, jet)

    @staticmethod
    @once_differentiable
    def backward(ctx, *dl_doutputs):
        nothing = None, None
        if all(each is None for each in dl_doutputs) or not ctx.needs_input_grad[1]:
            return None, None, *nothing
        x, params = ctx.saved_tensors
        evaluator = evaluator_for(ctx.description, x.device, "float32").jets
        found = evaluator.backward(x, params, ctx.jet, dl_doutputs)
        return None, found.to(params.dtype), *nothing


@torch.compiler.disable
def derivatives(
    x: Tensor, params: Tensor, description: str, order: int, wanted: str | None, max_level: Any
) -> OutputDerivatives:
    """Outputs and derivatives for Module.derivatives; the inputs have been checked."""
    jet = jet_for(Composition.of(*components(description)), order, wanted)
    if is_traced(x, params):
        raise RuntimeError("derivatives: PyTorch cannot trace or transform them; call it outside")
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "x: must not require a gradient, which would need third derivatives; detach it"
        )
    x, description = with_level(x.detach(), max_level, description)
    values, firsts, seconds = Jets.apply(x.contiguous(), params, description, jet)
    if jet.wanted is not None:
        seconds = seconds.view(*values.shape, *jet.second_shape)
    return OutputDerivatives(jet, (values, firsts, seconds))
