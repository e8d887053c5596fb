"""Activations where sums become pairs of halves, and their chain rule where gradients do.

ReLU has instructions of its own, two numbers at a time.
"""

from functools import cache

import numpy as np
from numba import types
from numba.extending import intrinsic

from numbanet.activations import Activation, ReLU
from numbanet.architecture import HOPPER, compute_capability
from numbanet.device import belongs_to, device
from numbanet.storage.halves import TO_FLOATS, TO_PAIR, ptx_function


@cache
def activate_pair(activation: Activation, precision: str):
    """Device function (low, high) -> the word of both activations."""
    forward, to_pair = activation.forward, TO_PAIR[precision]
    if forward is ReLU.forward:
        return RECTIFY[precision]

    @device
    @belongs_to(f"{activation.name}.forward")
    def activate_pair(low, high):
        return to_pair(forward(low), forward(high))

    return activate_pair


@cache
def activate_pair_backward(activation: Activation, precision: str):
    """Device function (low, high, kept) -> the word of two gradients before the activation."""
    backward, to_pair, to_floats = activation.backward, TO_PAIR[precision], TO_FLOATS[precision]
    is_relu, positive = backward is ReLU.backward, POSITIVE[precision]
    from_hopper = precision == "bfloat16"  # the comparison of two

    @device
    @belongs_to(f"{activation.name}.backward")
    def one_by_one(low, high, kept):
        first, second = to_floats(kept)
        return to_pair(backward(low, first), backward(high, second))

    @device
    def activate_pair_backward(low, high, kept):
        if is_relu and (not from_hopper or compute_capability() >= HOPPER):
            return np.uint32(to_pair(low, high) & positive(kept))
        return one_by_one(low, high, kept)

    return activate_pair_backward


def rectified_pair(kind):
    """Function (low, high): two float32, zero where they are negative, as a word of halves."""

    @intrinsic
    def rectify(typingctx, low, high):
        text = f"cvt.rn.relu.{kind}x2.f32 $0, $2, $1;"
        return ptx_function(text, types.uint32, (types.float32, types.float32), "=r,f,f")

    return rectify


def positive_mask(kind):
    """Function (word): all bits of each half that is above zero."""

    @intrinsic
    def positive(typingctx, word):
        text = f"set.gt.u32.{kind}x2 $0, $1, $2;"

        def codegen(context, builder, signature, args):
            _, emit = ptx_function(text, types.uint32, (types.uint32, types.uint32), "=r,r,r")
            two = types.uint32(types.uint32, types.uint32)
            return emit(context, builder, two, [args[0], context.get_constant(types.uint32, 0)])

        return types.uint32(types.uint32), codegen

    return positive


RECTIFY = {"float16": rectified_pair("f16"), "bfloat16": rectified_pair("bf16")}
POSITIVE = {"float16": positive_mask("f16"), "bfloat16": positive_mask("bf16")}
