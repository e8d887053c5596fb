"""The multi-layer perceptron inside of a fused kernel: functions for 16 rows of a warp.

Activations stay in registers from one layer to the next. For training they are also left in shared
memory, where the gradients of the weights need them as whole columns.
"""

from functools import cache
from itertools import pairwise

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.block.layout import FusedLayout
from numbanet.cuda.block.weights import matrix
from numbanet.device import device, local_array, nothing, uint32_view, unrolled
from numbanet.storage.access import reduce_pair
from numbanet.storage.halves import in_pairs, to_pairs
from numbanet.storage.memory_access import store_two_floats
from numbanet.tiles.activations import activate_pair, activate_pair_backward
from numbanet.tiles.fragments import (
    ROWS,
    add_outer_product,
    lane_columns,
    lane_rows,
    load_rows,
    product,
    store_rows,
)
from numbanet.tiles.instructions import ldmatrix_transposed


def activate(activation: Activation, precision: str, n_wide: int):
    """Device function (sums, words): the activation of sums, as halves."""
    return in_pairs(activate_pair(activation, precision), 4 * n_wide)


@cache
def activate_backward(activation: Activation, precision: str, n_wide: int):
    """Device function (sums, kept, words): the chain rule through an activation, as halves."""
    backward, n_words = activate_pair_backward(activation, precision), 4 * n_wide

    @device
    def to_word(q, sums, kept, words):
        words[q] = backward(sums[2 * q], sums[2 * q + 1], kept[q])

    @device
    def activate_backward(sums, kept, words):
        unrolled(n_words, to_word, sums, kept, words)

    return activate_backward


@cache
def forward(layout: FusedLayout, precision: str, n_fragments: int = 1):
    """Device function (shared, row, lane, sums, params): so many times 16 samples, to the output.

    `row` is the first one's number in the block, sums [n_fragments, padded output / 2] are what the
    output activation has not seen, `params` is as for `matrix`. Training leaves the hidden
    activations in shared memory.
    Fragments together read each matrix once, but take more registers.
    """
    n_blocks = tuple(width // ROWS for width in layout.widths)
    n_hidden, keeps = layout.model.network.n_hidden_layers, layout.trains
    matrix_of, rows, pitches = matrix(layout), layout.rows, layout.pitches
    hidden = layout.model.network.activations[0]
    n_in, n_wide = n_blocks[:2]
    n_words, n_sums = 4 * n_fragments * max(n_in, n_wide), 8 * n_fragments * n_wide
    n_feature_words, n_hidden_words = 4 * n_in, 4 * n_wide
    read = load_rows(n_in)
    activate_hidden = activate(hidden, precision, n_fragments * n_wide)
    products = [
        product(precision, deep, wide, pitches[k], transposed=True, n_fragments=n_fragments)
        for k, (deep, wide) in enumerate(pairwise(n_blocks))
    ]
    first_product, last_product = products[0], products[-1]
    middle_product = products[1] if n_hidden > 1 else nothing
    of_features, of_first = lane_rows(pitches[0]), lane_columns(pitches[0])
    of_hidden = lane_columns(pitches[1])
    store = store_rows(n_wide, pitches[1])
    features, feature_pitch, hidden_pitch = rows[0], pitches[0], pitches[1]

    @device
    def read_fragment(fragment, address, words):
        first = address + fragment * ROWS * feature_pitch
        read(first, words[fragment * n_feature_words : (fragment + 1) * n_feature_words])

    @device
    def keep_fragment(fragment, address, lane, words):
        first = address + fragment * ROWS * hidden_pitch
        store(first, lane, words[fragment * n_hidden_words : (fragment + 1) * n_hidden_words])

    @device
    def keep(k, shared, row, lane, words):
        if keeps:
            place = rows[k] + row * hidden_pitch
            unrolled(n_fragments, keep_fragment, shared + place, lane, words)

    @device
    def middle(k, shared, row, lane, words, sums, params):
        if k > 0:
            here = matrix_of(k, k, k + 1, shared, params)
            middle_product(words, here + of_hidden(lane), sums)
            activate_hidden(sums, words)
            keep(k + 1, shared, row, lane, words)

    @device
    def forward(shared, row, lane, sums, params):
        words, hidden_sums = uint32_view(local_array(n_words)), local_array(n_sums)
        place = features + row * feature_pitch + of_features(lane)
        unrolled(n_fragments, read_fragment, shared + place, words)
        here = matrix_of(0, 0, 1, shared, params)
        first_product(words, here + of_first(lane), hidden_sums)
        activate_hidden(hidden_sums, words)
        keep(1, shared, row, lane, words)
        unrolled(n_hidden, middle, shared, row, lane, words, hidden_sums, params)
        here = matrix_of(n_hidden, n_hidden, 0, shared, params)
        last_product(words, here + of_hidden(lane), sums)

    return forward


@cache
def through_matrix(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, row, lane, sums): the gradient of matrix k's inputs, 16 samples."""
    n_out, n_in = layout.widths[k + 1] // ROWS, layout.widths[k] // ROWS
    out_pitch, in_pitch = layout.pitches[k + 1], layout.pitches[k]
    multiply = product(precision, n_out, n_in, in_pitch, transposed=False)
    read, of_row, of_matrix = load_rows(n_out), lane_rows(out_pitch), lane_rows(in_pitch)
    weights, outputs, n_words = layout.weights[k], layout.rows[k + 1], 4 * n_out

    @device
    def through_matrix(shared, row, lane, sums):
        words = uint32_view(local_array(n_words))
        place = outputs + row * out_pitch
        read(shared + place + of_row(lane), words)
        multiply(words, shared + weights + of_matrix(lane), sums)

    return through_matrix


@cache
def hidden_backward(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, row, lane): 16 samples through matrix k and the activation below."""
    n_wide, pitch = layout.widths[k] // ROWS, layout.pitches[k]
    through = through_matrix(layout, precision, k)
    backward = activate_backward(layout.model.network.activations[0], precision, n_wide)
    read, store, of_lane = load_rows(n_wide), store_rows(n_wide, pitch), lane_rows(pitch)
    activations, n_words, n_sums = layout.rows[k], 4 * n_wide, 8 * n_wide

    @device
    def hidden_backward(shared, row, lane):
        sums, place = local_array(n_sums), row * pitch
        through(shared, row, lane, sums)
        kept, words = uint32_view(local_array(n_words)), uint32_view(local_array(n_words))
        read(shared + activations + place + of_lane(lane), kept)
        backward(sums, kept, words)
        store(shared + activations + place, lane, words)

    return hidden_backward


@cache
def features_backward(layout: FusedLayout, precision: str):
    """Device function (shared, row, lane): the gradient of 16 samples' features, in their place."""
    n_in, pitch = layout.widths[0] // ROWS, layout.pitches[0]
    store, features, n_words, n_sums = store_rows(n_in, pitch), layout.rows[0], 4 * n_in, 8 * n_in
    through, convert = through_matrix(layout, precision, 0), to_pairs(precision, n_words)

    @device
    def features_backward(shared, row, lane):
        sums, words = local_array(n_sums), uint32_view(local_array(n_words))
        through(shared, row, lane, sums)
        convert(sums, words)
        place = features + row * pitch
        store(shared + place, lane, words)

    return features_backward


@cache
def weight_gradients(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, warp, lane, sums): add the group's gradient of matrix k to sums.

    Each warp has some of its 16 x 16 blocks, each over all samples of the group.
    """
    m, n = layout.blocks[k]
    n_warps, n_mine, first = layout.n_warps, layout.blocks_per_warp[k], layout.first_sums[k]
    out_pitch, in_pitch = layout.pitches[k + 1], layout.pitches[k]
    outputs, inputs = layout.rows[k + 1], layout.rows[k]
    of_outputs, of_inputs = lane_columns(out_pitch), lane_rows(in_pitch)
    add = add_outer_product(precision)
    n_samples = layout.group_threads
    n_steps = n_samples // ROWS
    out_step, in_step = ROWS * out_pitch, ROWS * in_pitch
    same_row = n_warps % m == 0  # all of a warp's blocks are of the same outputs
    whole = m * n % n_warps == 0

    @device
    def add_block(j, warp, a_address, b_address, a, sums):
        block = warp + n_warps * j
        if whole or block < m * n:
            row, column = block % m, block // m
            b = ldmatrix_transposed(b_address + column * 32)
            if same_row:
                add(a, b, sums, first + 8 * j)
            else:
                other = ldmatrix_transposed(a_address + row * 32)
                add(other, b, sums, first + 8 * j)

    @device
    def weight_gradients(shared, warp, lane, sums):
        first_row = warp // n_warps * n_samples
        warp %= n_warps
        a_address = shared + outputs + of_outputs(lane)
        b_address = shared + inputs + of_inputs(lane)
        a_address += first_row * out_pitch
        b_address += first_row * in_pitch
        a_row = warp % m * 32 if same_row else np.uint32(0)
        for _ in range(n_steps):
            a = ldmatrix_transposed(a_address + a_row)
            unrolled(n_mine, add_block, warp, a_address, b_address, a, sums)
            a_address, b_address = a_address + out_step, b_address + in_step

    return weight_gradients


@cache
def flush_gradients(layout: FusedLayout, k: int, writes: bool):
    """Device function (warp, lane, sums, gradients): the sums of matrix k, to global memory.

    They are added to what is there, or written.
    """
    put_pair = store_two_floats if writes else reduce_pair
    m, n = layout.blocks[k]
    n_warps, first = layout.n_warps, layout.first_sums[k]
    fan_in, n_pairs = layout.widths[k], 4 * layout.blocks_per_warp[k]
    start = sum(rows * columns for rows, columns in layout.model.network.shapes[:k])

    @device
    def flush_pair(q, block, lane, sums, gradients):  # sums 2 q and 2 q + 1 of all of the warp's
        j, part = q // 4, q % 4
        here = block + n_warps * j
        if here < m * n:
            row = here % m * 16 + (lane >> 2)
            row += 8 * (part % 2)
            column = here // m * 16
            column += 2 * (lane & 3)
            column += 8 * (part // 2)
            i = start + row * fan_in + column
            put_pair(gradients, i, sums[first + 2 * q], sums[first + 2 * q + 1])

    @device
    def flush_gradients(warp, lane, sums, gradients):
        of_group = warp % n_warps
        unrolled(n_pairs, flush_pair, of_group, lane, sums, gradients)

    return flush_gradients
