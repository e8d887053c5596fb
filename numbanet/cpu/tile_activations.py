"""Activations and their derivatives over n numbers of a tile's scratch buffer.

`before` and `after` are where the numbers start that go into an activation and come out of it. The
columns of jets follow each other: all values, then all derivatives by the first input, and so on.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.activations import Activation
from numbanet.device import belongs_to, device, local_array
from numbanet.jets import Jet, activate_jet, activate_jet_backward


@intrinsic
def read(typingctx, x):
    """Load the float32 x itself, protected from being replaced by a result that is stored over it.

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
            for i in range(n):
                u = np.uintp(before + i)
                scratch[u] = forward(read(scratch[u]))
        else:
            for i in range(n):
                scratch[np.uintp(after + i)] = forward(scratch[np.uintp(before + i)])

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
            u = np.uintp(gradient + i)
            scratch[u] = backward(read(scratch[u]), scratch[np.uintp(kept + i)])

    return activate_backward


LANES = 16  # jets that are activated together: widths are multiples of it
TANGENT = Jet(1)  # a derivative along a direction, and no second ones


@cache
def load_lanes(n_columns: int):
    """Device function (scratch, start, step, lanes): columns of LANES numbers, `step` apart."""

    @device
    def load_lanes(scratch, start, step, lanes):
        for column in range(n_columns):
            for i in range(LANES):
                lanes[column * LANES + i] = scratch[start + column * step + i]

    return load_lanes


@cache
def store_lanes(n_columns: int):
    """Device function (lanes, scratch, start, step): load_lanes, the other way."""

    @device
    def store_lanes(lanes, scratch, start, step):
        for column in range(n_columns):
            for i in range(LANES):
                scratch[start + column * step + i] = lanes[column * LANES + i]

    return store_lanes


@cache
def activate_jets(activation: Activation, jet: Jet):
    """`activate` for the columns of jets, n numbers in all, which do not stay in place."""
    if jet == TANGENT:
        return activate_tangents(activation)
    n_columns, n_local = jet.n_columns, jet.n_columns * LANES
    load, store = load_lanes(n_columns), store_lanes(n_columns)
    activate_lane = activate_jet(activation, jet, LANES)

    @device
    @belongs_to(f"{activation.name}.forward")
    def activate_jets(scratch, before, after, n):
        z, y, step = local_array(n_local), local_array(n_local), n // n_columns
        for start in range(0, step, LANES):
            load(scratch, before + start, step, z)
            for i in range(LANES):
                activate_lane(i, z, y)
            store(y, scratch, after + start, step)

    return activate_jets


@cache
def activate_jets_backward(activation: Activation, jet: Jet):
    """`activate_backward` for the gradients of the columns of jets."""
    if jet == TANGENT:
        return activate_tangents_backward(activation)
    n_columns, n_local = jet.n_columns, jet.n_columns * LANES
    load, store = load_lanes(n_columns), store_lanes(n_columns)
    from_input, lane_backward = activation.from_input, activate_jet_backward(activation, jet, LANES)

    @device
    @belongs_to(f"{activation.name}.second")
    def activate_jets_backward(scratch, gradient, before, after, n):
        z, dl_dy, dl_dz = local_array(n_local), local_array(n_local), local_array(n_local)
        kept, step = before if from_input else after, n // n_columns
        for start in range(0, step, LANES):
            load(scratch, before + start, step, z)
            load(scratch, gradient + start, step, dl_dy)
            for i in range(LANES):
                lane_backward(i, scratch[kept + start + i], z, dl_dy, dl_dz)
            store(dl_dz, scratch, gradient + start, step)

    return activate_jets_backward


@cache
def activate_tangents(activation: Activation):
    """activate_jets for one derivative, a fifth faster."""
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
    """activate_jets_backward for one derivative."""
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
