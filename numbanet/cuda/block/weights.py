"""Weights of a fused kernel in shared memory: all matrices, or one after the other.

Where all of them fit they are copied once. Otherwise there are two places: while the warps of a
block multiply by the matrix in one, the next one is copied from global memory to the other.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FusedLayout
from numbanet.cuda.launch.threads import barrier
from numbanet.device import device, nothing, thread_index_for, unrolled
from numbanet.storage.views import ITEM_SIZES
from numbanet.tiles.copies import PIECE, copy_rows
from numbanet.tiles.instructions import wait_for_copies
from numbanet.tiles.warpgroups import columns_pitch


@cache
def load_matrix(layout: FusedLayout, rounds_to: str | None = None):
    """Device function (k, thread, params, address): start the copy of matrix k; see copy_rows."""
    shapes, n_hidden = layout.model.network.shapes, layout.model.network.n_hidden_layers
    copies = [
        copy_rows(*shape, pitch, layout.n_threads, rounds_to=rounds_to)
        if not layout.by_warpgroups(k)
        else copy_rows(*shape, PIECE, layout.n_threads, columns_pitch(shape[0]))
        for k, (shape, pitch) in enumerate(zip(shapes, layout.pitches, strict=False))
    ]
    copy_first, copy_last = copies[0], copies[-1]
    copy_middle = copies[1] if n_hidden > 1 else nothing
    item_size = ITEM_SIZES["float16" if rounds_to is None else "float32"]
    first_bytes, middle_bytes = (np.uint64(item_size * m * n) for m, n in shapes[:2])

    @device
    def load_matrix(k, thread, params, address):
        if k == 0:
            copy_first(thread, params, address)
        else:
            source = np.uint64(params + first_bytes + np.uint64(np.uint32(k - 1)) * middle_bytes)
            if k < n_hidden:
                copy_middle(thread, source, address)
            else:
                copy_last(thread, source, address)

    return load_matrix


@cache
def load_weights(layout: FusedLayout, rounds_to: str | None = None):
    """Device function (thread, params, shared): start the copies of all matrices, or of the first.

    Then wait_for_copies and a barrier, if there are all of them. Only these may be float32, which
    it `rounds_to` halves.
    """
    load, places = load_matrix(layout, rounds_to), layout.weights
    n_matrices = 1 if layout.streams else len(places)

    @device
    def load_one(k, thread, params, shared):
        load(k, thread, params, shared + places[k])

    @device
    def load_weights(thread, params, shared):
        unrolled(n_matrices, load_one, thread, params, shared)

    return load_weights


@cache
def matrix(layout: FusedLayout):
    """Device function (k, turn, following, shared, params) -> where matrix k is.

    Where matrices come one after the other, this is number `turn` of a tile's. All threads of the
    block call this together, and none of them reads the matrix before any more. The copy of matrix
    `following` is started, which the next call asks for; after the last one, `end_turns` is called.
    """
    if layout.streams:
        load, buffer_bytes = load_matrix(layout), layout.buffer_bytes

        @device
        def streamed(k, turn, following, shared, params):
            turn = np.uint32(turn)
            here, there = turn & 1, 1 - (turn & 1)
            wait_for_copies()
            barrier()
            thread = thread_index_for(turn)
            load(following, thread, params, shared + there * buffer_bytes)
            return shared + here * buffer_bytes

        return streamed
    first, middle_bytes = layout.weights[1], layout.widths[1] * layout.pitches[1]

    @device
    def resident(k, turn, following, shared, params):
        place = np.uint32(0)
        if k > 0:
            place = first + np.uint32(k - 1) * middle_bytes
        return shared + place

    return resident


@cache
def end_turns(layout: FusedLayout, n_turns: int):
    """Device function (shared, params): after so many calls of `matrix` for a tile.

    If their number is odd the first matrix comes once more, so that a tile always finds it in the
    first place, and no register has to say where it is.
    """
    if not layout.streams or n_turns % 2 == 0:
        return nothing
    matrix_of = matrix(layout)

    @device
    def end_turns(shared, params):
        matrix_of(0, n_turns, 0, shared, params)

    return end_turns
