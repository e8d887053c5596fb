"""The multi-layer perceptron inside of a fused kernel: functions for 16 rows of a warp.

Activations stay in registers from one layer to the next. For training they are also left in shared
memory, where the gradients of the weights need them as whole columns.
"""

from functools import cache

from numbanet.activations import Activation
from numbanet.cuda.block.layout import FusedLayout
from numbanet.cuda.block.weights import matrix
from numbanet.device import device, local_array, nothing, uint32_view, unrolled
from numbanet.storage.halves import in_pairs, to_pairs
from numbanet.tiles.activations import activate_pair, activate_pair_backward
from numbanet.tiles.fragments import (
    ROWS,
    lane_columns,
    lane_rows,
    load_rows,
    product,
    store_rows,
)
from numbanet.tiles.warpgroups import warpgroup_product


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
def product_with(
    layout: FusedLayout, precision: str, k: int, transposed: bool = True, n_fragments: int = 1
):
    """Device function (words, address, lane, sums): sums = words times matrix k, or transposed.

    So many times 16 rows; the address is that of the matrix in shared memory.
    """
    n_out, n_in = layout.widths[k + 1] // ROWS, layout.widths[k] // ROWS
    deep, wide = (n_in, n_out) if transposed else (n_out, n_in)
    if layout.by_warpgroups(k):
        multiply_together = warpgroup_product(precision, deep, wide, transposed, n_fragments)

        @device
        def by_warpgroup(words, address, lane, sums):
            multiply_together(words, address, sums)

        return by_warpgroup
    pitch = layout.pitches[k]
    multiply = product(precision, deep, wide, pitch, transposed, n_fragments)
    of_lane = lane_columns(pitch) if transposed else lane_rows(pitch)

    @device
    def by_warp(words, address, lane, sums):
        multiply(words, address + of_lane(lane), sums)

    return by_warp


@cache
def forward(layout: FusedLayout, precision: str, n_fragments: int = 1):
    """Device function (shared, row, lane, sums, params): so many times 16 samples, to the output.

    `row` is the first one's number in the block, sums [n_fragments, padded output / 2] are what the
    output activation has not seen, `params` is as for `matrix`. Training leaves the hidden
    activations in shared memory.
    Fragments together read each matrix once, but take more registers.
    """
    n_hidden, keeps = layout.model.network.n_hidden_layers, layout.trains
    matrix_of, rows = matrix(layout), layout.rows
    hidden = layout.model.network.activations[0]
    n_in, n_wide = (width // ROWS for width in layout.widths[:2])
    n_words, n_sums = 4 * n_fragments * max(n_in, n_wide), 8 * n_fragments * n_wide
    n_feature_words, n_hidden_words = 4 * n_in, 4 * n_wide
    row_pitches, piece = layout.row_pitches, layout.piece_pitch
    read = load_rows(n_in, piece)
    activate_hidden = activate(hidden, precision, n_fragments * n_wide)
    products = [
        product_with(layout, precision, k, n_fragments=n_fragments) for k in range(n_hidden + 1)
    ]
    first_product, last_product = products[0], products[-1]
    middle_product = products[1] if n_hidden > 1 else nothing
    of_features, store = lane_rows(row_pitches[0], piece), store_rows(n_wide, row_pitches[1], piece)
    features, feature_pitch, hidden_pitch = rows[0], row_pitches[0], row_pitches[1]

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
            middle_product(words, here, lane, sums)
            activate_hidden(sums, words)
            keep(k + 1, shared, row, lane, words)

    @device
    def forward(shared, row, lane, sums, params):
        words, hidden_sums = uint32_view(local_array(n_words)), local_array(n_sums)
        place = features + row * feature_pitch + of_features(lane)
        unrolled(n_fragments, read_fragment, shared + place, words)
        here = matrix_of(0, 0, 1, shared, params)
        first_product(words, here, lane, hidden_sums)
        activate_hidden(hidden_sums, words)
        keep(1, shared, row, lane, words)
        unrolled(n_hidden, middle, shared, row, lane, words, hidden_sums, params)
        here = matrix_of(n_hidden, n_hidden, 0, shared, params)
        last_product(words, here, lane, sums)

    return forward


@cache
def through_matrix(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, row, lane, sums): the gradient of matrix k's inputs, 16 samples."""
    n_out, pitch, piece = (
        layout.widths[k + 1] // ROWS,
        layout.row_pitches[k + 1],
        layout.piece_pitch,
    )
    multiply = product_with(layout, precision, k, transposed=False)
    read, of_row = load_rows(n_out, piece), lane_rows(pitch, piece)
    weights, outputs, n_words = layout.weights[k], layout.rows[k + 1], 4 * n_out

    @device
    def through_matrix(shared, row, lane, sums):
        words = uint32_view(local_array(n_words))
        place = outputs + row * pitch
        read(shared + place + of_row(lane), words)
        multiply(words, shared + weights, lane, sums)

    return through_matrix


@cache
def hidden_backward(layout: FusedLayout, precision: str, k: int):
    """Device function (shared, row, lane): 16 samples through matrix k and the activation below."""
    n_wide, pitch, piece = layout.widths[k] // ROWS, layout.row_pitches[k], layout.piece_pitch
    through = through_matrix(layout, precision, k)
    backward = activate_backward(layout.model.network.activations[0], precision, n_wide)
    read, store = load_rows(n_wide, piece), store_rows(n_wide, pitch, piece)
    of_lane = lane_rows(pitch, piece)
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
    n_in, pitch = layout.widths[0] // ROWS, layout.row_pitches[0]
    store, features = store_rows(n_in, pitch, layout.piece_pitch), layout.rows[0]
    n_words, n_sums = 4 * n_in, 8 * n_in
    through, convert = through_matrix(layout, precision, 0), to_pairs(precision, n_words)

    @device
    def features_backward(shared, row, lane):
        sums, words = local_array(n_sums), uint32_view(local_array(n_words))
        through(shared, row, lane, sums)
        convert(sums, words)
        place = features + row * pitch
        store(shared + place, lane, words)

    return features_backward
