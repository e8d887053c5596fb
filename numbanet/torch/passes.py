"""Passes for modules: direct calls in eager mode, operators where PyTorch traces.

An operator costs the host more than a small kernel takes. So where nothing needs a gradient a pass
is a plain call, and otherwise an autograd function; see docs/design/pytorch.md.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Parameter

from numbanet.torch import derivatives, operators
from numbanet.torch.evaluator import evaluator_for

PLAIN = {Tensor, Parameter}


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether PyTorch traces or transforms the computation.

    It may compile or export a program, transform it, record it, or compute without numbers.
    """
    if (
        torch._C._len_torch_dispatch_stack()
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    ):
        return True
    for tensor in tensors:  # a generator would take three times as long
        if tensor is not None and (type(tensor) not in PLAIN or tensor.is_meta):
            return True
    return False


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether any of them requires a gradient at this point."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def forward(x: Tensor, params: Tensor, description: str, precision: str) -> Tensor:
    """Outputs; see operators.forward. State for the backward pass is kept.

    But on a CPU nothing is, for gradients of the inputs, which so are numbanet's to the last bit.
    """
    enabled = torch.is_grad_enabled()
    x_needs, params_need = enabled and x.requires_grad, enabled and params.requires_grad
    keeps = x.device.type != "cpu" if x_needs else params_need
    if torch.compiler.is_compiling() or is_traced(x, params):
        if torch.jit.is_tracing():  # which takes operators as a whole only without their gradients
            with torch.no_grad():
                return operators.forward(x, params.float(), description, precision, False)[0]
        return operators.forward(x, params.float(), description, precision, keeps)[0]
    if x_needs or params_need:
        return Forward.apply(x, params, description, precision, keeps)
    return evaluated(x, params, description, precision, keeps)[0]


def backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, kept: Tensor | None, description: str,
    precision: str, wants_x: bool, wants_params: bool,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of x and params, None or empty where not wanted; see operators.backward."""
    given = dl_dy, x, params, kept, description, precision, wants_x, wants_params
    if is_traced(dl_dy, x, params):
        kept = x.new_empty(0) if kept is None else kept
        return operators.backward(dl_dy, x, params.float(), kept, *given[4:])
    if needs_gradient(dl_dy, x, params):
        return Backward.apply(*given)
    return gradients(*given)


def double_backward(
    dl_dy: Tensor, x: Tensor, params: Tensor, dl_ddx: Tensor, *options: Any
) -> tuple[Tensor | None, ...]:
    """Gradients of dl_dy, x and params; see operators.double_backward."""
    if is_traced(dl_dy, x, params, dl_ddx):
        return operators.double_backward(dl_dy, x, params.float(), dl_ddx, *options)
    if needs_gradient(dl_dy, x, params, dl_ddx):
        return DoubleBackward.apply(dl_dy, x, params, dl_ddx, *options)
    return second_gradients(dl_dy, x, params, dl_ddx, *options)


def loss(
    x: Tensor, params: Tensor, targets: Tensor, pdf: Tensor | None, description: str,
    precision: str, config: str,
) -> Tensor:  # fmt: skip
    """Mean loss; see operators.loss. Required gradients are computed with it."""
    given = x, params, targets, pdf, description, precision, config
    wanted = needs_gradient(x), needs_gradient(params)
    if torch.compiler.is_compiling() or is_traced(x, params, targets, pdf):
        return operators.loss(x, params.float(), *given[2:], *wanted)[0]
    compute = Loss.apply if any(wanted) else loss_and_gradients
    return compute(*given, *wanted)[0]


def function(
    compute: Callable, keep: Callable, derivative: Callable, returns: slice | int = slice(None)
) -> type[Function]:
    """Autograd function from a forward pass, its saved state, and a backward pass.

    It returns that part of what was computed.
    """

    def forward(ctx, *inputs):  # PyTorch's setup_context would take longer: it asks for a signature
        output = compute(*inputs)
        keep(ctx, inputs, output)
        return output[returns]

    members = {"forward": staticmethod(forward), "backward": staticmethod(derivative)}
    return type(f"numbanet_{compute.__name__}", (Function,), members)


def evaluated(x, params, description, precision, keeps):
    return evaluator_for(description, x.device, precision).forward(x, params, keeps)


def gradients(dl_dy, x, params, kept, description, precision, wants_x, wants_params):
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.backward(dl_dy, x, params, kept, wants_x, wants_params)


def second_gradients(dl_dy, x, params, dl_ddx, description, precision, wants_params):
    evaluator = evaluator_for(description, x.device, precision)
    return evaluator.double_backward(dl_dy, x, params, dl_ddx, wants_params)


def loss_and_gradients(
    x, params, targets, pdf, description, precision, config, wants_x, wants_params
):
    evaluator, found = evaluator_for(description, x.device, precision), operators.find_loss(config)
    return evaluator.loss(x, params, targets, pdf, found, wants_x, wants_params)


Forward = function(evaluated, derivatives.keep_forward, derivatives.of_forward(backward), 0)
Backward = function(gradients, derivatives.keep_backward, derivatives.of_backward(double_backward))
DoubleBackward = function(
    second_gradients, derivatives.keep_nothing, derivatives.of_double_backward
)
Loss = function(loss_and_gradients, derivatives.keep_loss, derivatives.of_loss)
