"""Activations of sums that become pairs of halves, and their chain rule for gradients.

ReLU has instructions of its own, two numbers at a time.
"""

from functools import cache

import numpy as np
from numba import types

from numbanet.activations import Activation, ReLU
from numbanet.architecture import HOPPER, compute_capability
from numbanet.device import belongs_to, device
from numbanet.ptx import instruction
from numbanet.storage.halves import TO_FLOATS, TO_PAIR, pair_of_floats


@cache
def activate_pair(activation: Activation, precision: str):
    """Device function (low, high) -> word of both activations."""
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
    """Device function (low, high, kept) -> word of two gradients before the activation."""
    backward, to_pair, to_floats = activation.backward, TO_PAIR[precision], TO_FLOATS[precision]
    is_relu, above = backward is ReLU.backward, ABOVE[precision]
    from_hopper = precision == "bfloat16"  # the comparison of two

    @device
    @belongs_to(f"{activation.name}.backward")
    def one_by_one(low, high, kept):
        first, second = to_floats(kept)
        return to_pair(backward(low, first), backward(high, second))

    @device
    def activate_pair_backward(low, high, kept):
        if is_relu and (not from_hopper or compute_capability() >= HOPPER):
            return to_pair(low, high) & above(kept, np.uint32(0))
        return one_by_one(low, high, kept)

    return activate_pair_backward


def above(kind):
    """Device function (word, limits) -> mask of the halves that exceed the limits'."""
    text = f"set.gt.u32.{kind}x2 $0, $1, $2;"
    return instruction(text, types.uint32, types.uint32, types.uint32)


KINDS = {"float16": "f16", "bfloat16": "bf16"}
RECTIFY = {each: pair_of_floats(f"cvt.rn.relu.{kind}x2.f32") for each, kind in KINDS.items()}
ABOVE = {each: above(kind) for each, kind in KINDS.items()}
