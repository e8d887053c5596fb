"""Derivatives of passes, for autograd: the state that a pass saves, and its backward pass.

The same for the operators that PyTorch's compiler sees and for the functions of eager mode, so each
formula takes the pass that it calls. Passes return None, or as operators an empty tensor, where
nothing is wanted.
"""

from collections.abc import Callable


def keep_forward(ctx, inputs, output):
    x, params, *ctx.model, _ = inputs
    ctx.save_for_backward(x, params, output[1])
    ctx.set_materialize_grads(False)


def of_forward(backward: Callable) -> Callable:
    def forward_backward(ctx, dl_dy, _=None):  # an operator returns its saved tensor too
        nothing = (None,) * 3
        if dl_dy is None:
            return None, None, *nothing
        wants_x, wants_params, *_ = ctx.needs_input_grad
        dl_dx, dl_dparams = backward(dl_dy, *ctx.saved_tensors, *ctx.model, wants_x, wants_params)
        return dl_dx if wants_x else None, dl_dparams if wants_params else None, *nothing

    return forward_backward


def keep_backward(ctx, inputs, output):
    dl_dy, x, params, _, *ctx.model, _, _ = inputs
    ctx.save_for_backward(dl_dy, x, params)
    ctx.set_materialize_grads(False)


def of_backward(double_backward: Callable) -> Callable:
    def backward_backward(ctx, dl_ddx, dl_ddparams):
        nothing = (None,) * 5
        if dl_ddparams is not None:
            raise RuntimeError(
                "the gradient of the parameters cannot be differentiated once more, only that of "
                "the inputs can; detach it"
            )
        if dl_ddx is None:
            return None, None, None, *nothing
        dl_dy, x, params = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        found = double_backward(dl_dy, x, params, dl_ddx, *ctx.model, wanted[2])
        pairs = zip(found, wanted, strict=True)
        return *(value if want else None for value, want in pairs), *nothing

    return backward_backward


def keep_nothing(ctx, inputs, output):
    ctx.set_materialize_grads(False)


def of_double_backward(ctx, *of_gradients):
    if any(gradient is not None for gradient in of_gradients):
        raise RuntimeError(
            "second derivatives cannot be differentiated once more; leave create_graph=True out "
            "where they are computed, or detach them"
        )
    return (None,) * 7


def keep_loss(ctx, inputs, output):
    _, *gradients = output
    ctx.save_for_backward(*gradients)
    ctx.set_materialize_grads(False)


def of_loss(ctx, dl_dvalue, *of_gradients):
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
