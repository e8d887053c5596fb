"""Optimizer step on groups of parameters: four to a thread, in accesses of 16 bytes.

The state of four parameters is brought to registers, where `step` finds it under their own indices,
and is written back. So every row is read and written: optimizers that leave some of them alone, or
find at run time which one they need, take one parameter to a thread.
"""

from functools import cache

import numpy as np

from numbanet.device import ZERO, device, four_from, local_array, set_four, unrolled
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.storage.access import store
from numbanet.storage.halves import TO_PAIR
from numbanet.storage.memory_access import load_four_floats, store_four_floats, store_two_words
from numbanet.storage.views import VECTORS, columns_from, float_matrix, float_vector

FOUR = 4  # float32 of 16 bytes
MOST_ROWS = 8  # of the state, so that those of four parameters fit a thread's registers


def group_size(optimizer: AbstractOptimizer, layout: ParamLayout) -> int:
    """Parameters per thread: four only where all rows of all arrays are aligned to 16 bytes."""
    aligned = layout.n_params % FOUR == layout.aligned_param % FOUR == 0
    fits = optimizer.touches_all_state and optimizer.n_state <= MOST_ROWS
    return FOUR if aligned and fits else 1


@cache
def step_group(optimizer: AbstractOptimizer, layout: ParamLayout, precision: str, pitch: int):
    """Device function (i, weights, gradients, state, scalars, matrices, copy).

    Steps the parameters from i on. `state` and `copy` are addresses; a row of the state has `pitch`
    numbers, and the copy is what the other
    kernels read, unless they read the weights. Nothing is touched where no parameter moves.
    """
    make = step_four if group_size(optimizer, layout) == FOUR else step_one
    return make(optimizer, layout, precision, pitch)


def step_one(optimizer: AbstractOptimizer, layout: ParamLayout, precision: str, pitch: int):
    step, moves = optimizer.step(layout), optimizer.moves(layout)
    n, n_state = layout.n_params, optimizer.n_state
    vector, has_copy = VECTORS[precision], precision != "float32"

    @device
    def step_one(i, weights, gradients, pstate, scalars, matrices, pcopy):
        g = gradients[i]
        if moves(i, g):
            w = step(i, weights[i], g, float_matrix(pstate, n_state, pitch), scalars, matrices)
            weights[i] = w
            if has_copy:
                store(vector(pcopy, n), i, w)

    return step_one


@cache
def step_given(optimizer: AbstractOptimizer, layout: ParamLayout, precision: str, pitch: int):
    """Device function (i, g, weights, state, scalars, matrices, copy): four gradients are given."""
    step, moves = optimizer.step(layout), optimizer.moves(layout)
    n, n_state, n_kept = layout.n_params, optimizer.n_state, FOUR * max(optimizer.n_state, 1)
    vector, to_pair = VECTORS[precision], TO_PAIR.get(precision)
    has_copy = to_pair is not None

    @device
    def load_row(row, i, state, kept):
        k = 4 * row
        four = load_four_floats(state, np.uintp(row * pitch) + i)
        set_four(kept, k, four)

    @device
    def store_row(row, i, state, kept):
        k, place = 4 * row, np.uintp(row * pitch) + i
        store_four_floats(state, place, *four_from(kept, k))

    @device
    def step_each(k, i, w, g, state, scalars, matrices):
        w[k] = step(i + np.uintp(k), w[k], g[k], state, scalars, matrices)

    @device
    def step_given(i, g, weights, pstate, scalars, matrices, pcopy):
        w, kept = local_array(FOUR), local_array(n_kept)
        some_move = (
            (moves(i, g[0]) | moves(i + np.uintp(1), g[1]))
            | (moves(i + np.uintp(2), g[2]) | moves(i + np.uintp(3), g[3]))
        )  # fmt: skip
        if some_move:
            state = float_vector(pstate, n_state * pitch)
            set_four(w, 0, load_four_floats(weights, i))
            unrolled(n_state, load_row, i, state, kept)
            mine = columns_from(kept, i, n_state, FOUR)
            unrolled(FOUR, step_each, i, w, g, mine, scalars, matrices)
            unrolled(n_state, store_row, i, state, kept)
            store_four_floats(weights, i, *four_from(w, 0))
            if has_copy:
                low, high = to_pair(w[0], w[1]), to_pair(w[2], w[3])
                store_two_words(vector(pcopy, n), i, low, high)

    return step_given


def step_four(optimizer: AbstractOptimizer, layout: ParamLayout, precision: str, pitch: int):
    step = step_given(optimizer, layout, precision, pitch)

    @device
    def step_four(i, weights, gradients, pstate, scalars, matrices, pcopy):
        g = local_array(FOUR)
        set_four(g, 0, load_four_floats(gradients, i))
        step(i, g, weights, pstate, scalars, matrices, pcopy)

    return step_four


@cache
def clear_group(optimizer: AbstractOptimizer, layout: ParamLayout):
    """Device function (i, gradients): zero those of a group from i on."""
    if group_size(optimizer, layout) == FOUR:

        @device
        def clear_four(i, gradients):
            store_four_floats(gradients, i, ZERO, ZERO, ZERO, ZERO)

        return clear_four

    @device
    def clear_one(i, gradients):
        gradients[i] = ZERO

    return clear_one
