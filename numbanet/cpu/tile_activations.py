"""Activations and their derivatives over n numbers of a tile's scratch buffer.

`before` and `after` are where the numbers start that go into an activation and come out of it. With
tangents, n / 2 numbers are followed by their n / 2 tangents.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.activations import Activation
from numbanet.device import belongs_to, device


@intrinsic
def read(typingctx, x):
    """The float32 x itself, which is not taken for what lies where a result of it is stored.

    From `a[i] = select(condition, other, a[i])` LLVM otherwise makes a masked store, which without
    AVX-512 takes AMD's processors as long as many stores; see docs/design/cpu_engine.md.
    """

    def codegen(context, builder, signature, args):
        instruction = ir.Instruction(builder.block, args[0].type, "freeze", args)
        builder._insert(instruction)  # llvmlite's builder has no method for it
        return instruction

    return types.float32(types.float32), codegen


@cache
def activate(activation: Activation):
    """Device function (scratch, before, after, n): apply an activation to n numbers.

    `before` and `after` are the same place or do not overlap. The two cases are two loops, because
    LLVM does not vectorise one that might read what it has just written.
    """
    forward = activation.forward

    @device
    @belongs_to(f"{activation.name}.forward")
    def activate(scratch, before, after, n):
        if before == after:
            for i in range(before, before + n):
                scratch[i] = forward(read(scratch[i]))
        else:
            for i in range(n):
                scratch[after + i] = forward(scratch[before + i])

    return activate


@cache
def activate_backward(activation: Activation):
    """Device function (scratch, gradient, before, after, n): chain rule in place."""
    backward, from_input = activation.backward, activation.from_input

    @device
    @belongs_to(f"{activation.name}.backward")
    def activate_backward(scratch, gradient, before, after, n):
        kept = before if from_input else after
        for i in range(n):
            dl_dy = read(scratch[gradient + i])
            scratch[gradient + i] = backward(dl_dy, scratch[kept + i])

    return activate_backward


@cache
def activate_tangents(activation: Activation):
    """As activate, for n / 2 numbers and their tangents, which do not stay in place."""
    activate_values = activate(activation)
    backward, from_input = activation.backward, activation.from_input

    @device
    @belongs_to(f"{activation.name}.backward")
    def activate_tangents(scratch, before, after, n):
        half = n // 2
        activate_values(scratch, before, after, half)
        kept = before if from_input else after
        for i in range(half):
            tangent = scratch[before + half + i]
            scratch[after + half + i] = backward(tangent, scratch[kept + i])

    return activate_tangents


@cache
def activate_tangents_backward(activation: Activation):
    """As activate_backward, for the gradients of n / 2 numbers and of their tangents."""
    backward, second = activation.backward, activation.second
    from_input = activation.from_input

    @device
    @belongs_to(f"{activation.name}.second")
    def activate_tangents_backward(scratch, gradient, before, after, n):
        half = n // 2
        kept = before if from_input else after
        for i in range(half):
            x, dl_dtangent = scratch[kept + i], read(scratch[gradient + half + i])
            bend = second(x) * scratch[before + half + i]
            dl_dy = read(scratch[gradient + i])
            scratch[gradient + i] = backward(dl_dy, x) + bend * dl_dtangent
            scratch[gradient + half + i] = backward(dl_dtangent, x)

    return activate_tangents_backward
