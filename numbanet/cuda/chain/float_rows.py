"""Rows of features in global memory, of which a lane of 32 samples has four; see float_layers.py.

`work` is a tuple of the address of row 0, the warp's first sample, the end of the samples and the
pitch. `lane` is one of the address of the lane's first feature and sample in row 0, of t, of the
bytes from a row to the next, and of whether there are samples. Numbers behind the last sample are
loaded and written as well, up to a multiple of 32, which the pitch is.
"""

from functools import cache

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.chain.tensor import is_linear
from numbanet.device import (
    ZERO,
    belongs_to,
    device,
    float_bits,
    four_from,
    opaque,
    set_four,
    thread_index_for,
    uint32_view,
    unrolled,
)
from numbanet.storage.views import FLOAT_BYTES, float_vector
from numbanet.tiles.instructions import load_words_from, store_words_to, warp_barrier

WARP_SAMPLES = 32
BYTES = np.uint64(FLOAT_BYTES)
NO_WORD, ONE, TWO, THREE, THIRTY_ONE = (np.uint32(n) for n in (0, 1, 2, 3, 31))


@device
def lane_of(work):
    """The lane, computed anew wherever it is needed, and not kept in registers."""
    memory, i, n, pitch = work
    i = opaque(i)
    t, four = thread_index_for(i) & THREE, (thread_index_for(i) & THIRTY_ONE) >> TWO << TWO
    i, row_bytes = np.uint32(i + four), np.uint64(BYTES * np.uint64(pitch))
    first = np.uint64(memory + np.uint64(TWO * t) * row_bytes)
    return np.uint64(first + BYTES * np.uint64(i)), t, row_bytes, i < n


@device
def row(lane, k):  # address of the lane's first feature in the rows from k on
    return np.uint64(lane[0] + np.uint64(k) * lane[2])


@device
def row_offset(f, row_bytes):  # from the lane's first row to that of feature f, in bytes
    return np.uint64(8 * (f // 2) + f % 2) * row_bytes


@device
def row_number(f, t):  # of feature f of a lane
    return np.uint32(np.uint32(8 * (f // 2) + f % 2) + TWO * t)


@device
def store_four(address, values):
    a, b, c, d = values
    store_words_to(address, (float_bits(a), float_bits(b), float_bits(c), float_bits(d)))


def n_features_of(n_rows: int) -> int:
    """Features of a lane, of n_rows and those up to a multiple of 8."""
    return 2 * -(-n_rows // 8)


@cache
def is_row(n_rows: int):
    """Device function (f, t): whether feature f of a lane is among n_rows."""
    whole = n_rows % 8 == 0

    @device
    def is_row(f, t):
        return whole or row_number(f, t) < n_rows

    return is_row


@cache
def load_rows(n_rows: int):
    """Device function (lane, source, x): load n_rows, and zeros up to a multiple of 8."""
    is_there, n_features = is_row(n_rows), n_features_of(n_rows)

    @device
    def load_row(f, lane, source, x):
        _, t, row_bytes, _ = lane
        words = uint32_view(x)
        set_four(words, 4 * f, (NO_WORD, NO_WORD, NO_WORD, NO_WORD))
        if is_there(f, t):
            set_four(words, 4 * f, load_words_from(np.uint64(source + row_offset(f, row_bytes))))

    @device
    def load_rows(lane, source, x):
        unrolled(n_features, load_row, lane, source, x)

    return load_rows


@cache
def finish_forward(activation: Activation, n_rows: int):
    """Device function (sums, lane, target, kept, x): activate sums to x, and write them."""
    act, from_input = activation.forward, activation.from_input
    is_there, n_features = is_row(n_rows), n_features_of(n_rows)

    @device
    @belongs_to(f"{activation.name}.forward")
    def finish_row(f, sums, lane, target, kept, x):
        _, t, row_bytes, _ = lane
        set_four(x, 4 * f, (ZERO, ZERO, ZERO, ZERO))
        if is_there(f, t):
            a, b, c, d = four_from(sums, 4 * f)
            values, offset = (act(a), act(b), act(c), act(d)), row_offset(f, row_bytes)
            if from_input:
                store_four(np.uint64(kept + offset), (a, b, c, d))
            store_four(np.uint64(target + offset), values)
            set_four(x, 4 * f, values)

    @device
    def finish_forward(sums, lane, target, kept, x):
        unrolled(n_features, finish_row, sums, lane, target, kept, x)

    return finish_forward


@cache
def finish_backward(activation: Activation, n_rows: int):
    """Device function (sums, lane, target, kept, x): apply the chain rule to sums, and write them.

    See finish_forward.
    """
    act_backward, linear = activation.backward, is_linear(activation)
    is_there, n_features, load_kept = is_row(n_rows), n_features_of(n_rows), load_rows(n_rows)

    @device
    @belongs_to(f"{activation.name}.backward")
    def finish_row(f, sums, lane, target, x):
        _, t, row_bytes, _ = lane
        values = four_from(sums, 4 * f)
        if not linear:
            kept, (a, b, c, d) = four_from(x, 4 * f), values
            values = (
                act_backward(a, kept[0]),
                act_backward(b, kept[1]),
                act_backward(c, kept[2]),
                act_backward(d, kept[3]),
            )
        set_four(x, 4 * f, (ZERO, ZERO, ZERO, ZERO))
        if is_there(f, t):
            store_four(np.uint64(target + row_offset(f, row_bytes)), values)
            set_four(x, 4 * f, values)
        warp_barrier()  # so that the assembler does not mix all rows, whose registers would spill

    @device
    def finish_backward(sums, lane, target, kept, x):
        if not linear:
            load_kept(lane, kept, x)  # all at once: one wait for memory, not one for each row
        unrolled(n_features, finish_row, sums, lane, target, x)

    return finish_backward


@cache
def add_bias(n_rows: int):
    """Device function (bias, lane, sums): add a number to each row."""
    is_there, n_features = is_row(n_rows), n_features_of(n_rows)

    @device
    def add_to_row(f, bias, lane, sums):
        _, t, _, _ = lane
        if is_there(f, t):
            o = row_number(f, t)
            value = float_vector(bias, o + ONE)[o]
            for k in range(4):
                sums[4 * f + k] += value

    @device
    def add_bias(bias, lane, sums):
        unrolled(n_features, add_to_row, bias, lane, sums)

    return add_bias
