"""Multi-layer perceptron of wide training: functions for the 32 samples of a warp.

Both of their fragments are multiplied together, so that a matrix is read from shared memory once
for both. Going forward and back they stay in registers; what the gradients of the weights need is
left in a unit of global memory, of which a lane reads again only what it wrote itself.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FRAGMENTS
from numbanet.cuda.block.network import activate, activate_backward
from numbanet.cuda.block.weights import matrix
from numbanet.cuda.wide.layout import MATRIX_BYTES, WideLayout
from numbanet.device import device, lane_number, local_array, nothing, uint32_view, unrolled
from numbanet.storage.halves import to_pairs
from numbanet.tiles.fragments import ROWS, lane_columns, lane_rows, product
from numbanet.tiles.instructions import load_word_from, store_word_to


@device
def load_one(q, address, words):
    words[q] = load_word_from(np.uint64(address + np.uint64(MATRIX_BYTES * q)))


@device
def store_one(q, address, words):
    store_word_to(np.uint64(address + np.uint64(MATRIX_BYTES * q)), words[q])


@cache
def through(layout: WideLayout, precision: str, k: int, forth: bool):
    """`product` with matrix k: from its inputs to its outputs, or back."""
    n_in, n_out = (width // ROWS for width in layout.widths[k : k + 2])
    deep, wide = (n_in, n_out) if forth else (n_out, n_in)
    return product(precision, deep, wide, layout.block.pitches[k], forth, FRAGMENTS)


@cache
def forward(layout: WideLayout, precision: str, keeps: bool):
    """Device function (shared, unit, sums, params): from the features to the output.

    `unit` is the lane's address in the unit, which has the features; sums [padded output] are what
    the output activation has not seen; `params` is as for `matrix`. `keeps` leaves the hidden
    activations in the unit, and where these are differentiated at their inputs, those in the place
    of the gradients.
    """
    hidden, n_hidden = layout.model.network.activations[0], layout.n_hidden
    pitches, matrix_of = layout.block.pitches, matrix(layout.block)
    n_in, n_wide = (FRAGMENTS * width // ROWS for width in layout.widths[:2])
    n_features, n_hidden_words, n_sums = 4 * n_in, 4 * n_wide, 8 * n_wide
    n_words, after = max(n_features, n_hidden_words), n_hidden if keeps else 0
    first_product, last_product = (through(layout, precision, k, True) for k in (0, n_hidden))
    middle_product = through(layout, precision, 1, True) if n_hidden > 1 else nothing
    activate_hidden = activate(hidden, precision, n_wide)
    keeps_inputs, convert = keeps and hidden.from_input, to_pairs(precision, n_hidden_words)
    of_first, of_hidden = lane_columns(pitches[0]), lane_columns(pitches[1])
    first_values, layer_bytes = np.uint64(layout.values[1]), np.uint64(layout.sizes[1])
    to_inputs = np.uint64(layout.gradients[1] - layout.values[1])

    @device
    def activate_and_keep(at, sums, words):
        if keeps_inputs:
            convert(sums, words)
            unrolled(n_hidden_words, store_one, np.uint64(at + to_inputs), words)
        activate_hidden(sums, words)
        if keeps:
            unrolled(n_hidden_words, store_one, at, words)

    @device
    def forward(shared, unit, sums, params):
        words, hidden_sums = uint32_view(local_array(n_words)), local_array(n_sums)
        unrolled(n_features, load_one, unit, words)
        here = matrix_of(0, 0, 1, shared, params)
        first_product(words, here + of_first(lane_number(here)), hidden_sums)
        activate_and_keep(np.uint64(unit + first_values), hidden_sums, words)
        k = np.uint32(1)
        while k < n_hidden:  # not unrolled: the code is to fit the instruction cache
            here = matrix_of(k, k, k + 1, shared, params)
            middle_product(words, here + of_hidden(lane_number(here)), hidden_sums)
            at = np.uint64(unit + first_values + np.uint64(k) * layer_bytes)
            activate_and_keep(at, hidden_sums, words)
            k += 1
        here = matrix_of(n_hidden, n_hidden, after, shared, params)
        last_product(words, here + of_hidden(lane_number(here)), sums)

    return forward


@cache
def backward(layout: WideLayout, precision: str, to_features: bool, keeps: bool):
    """Device function (shared, unit, words, params): from the gradient of the output on.

    words [padded output / 2] and `unit` are the lane's; the unit has what `forward` keeps, and the
    matrices follow those of `forward`. Where asked for, the gradient of the features is left in the
    unit, and `keeps` leaves that of each layer before its activation.
    """
    hidden, n_hidden = layout.model.network.activations[0], layout.n_hidden
    pitches, matrix_of = layout.block.pitches, matrix(layout.block)
    n_in, n_wide, n_out = (FRAGMENTS * layout.widths[k] // ROWS for k in (0, 1, -1))
    n_features, n_feature_sums, n_outputs = 4 * n_in, 8 * n_in, 4 * n_out
    n_words, n_sums, n_forward = 4 * n_wide, 8 * n_wide, n_hidden + 1
    last_product = through(layout, precision, n_hidden, False)
    middle_product = through(layout, precision, 1, False) if n_hidden > 1 else nothing
    first_product = through(layout, precision, 0, False) if to_features else nothing
    chain_rule = activate_backward(hidden, precision, n_wide)
    convert = to_pairs(precision, n_features)
    of_first, of_hidden = lane_rows(pitches[0]), lane_rows(pitches[1])
    values, places = layout.values, [np.uint64(place) for place in layout.gradients]
    of_features, of_first_hidden, of_last, of_output = (
        places[k] for k in (0, 1, n_hidden, n_hidden + 1)
    )
    layer_bytes = np.uint64(layout.sizes[1])
    to_kept = np.uint64(0 if hidden.from_input else layout.gradients[1] - values[1])

    @device
    def chain_rule_and_keep(at, sums, words):
        kept = uint32_view(local_array(n_words))
        unrolled(n_words, load_one, np.uint64(at - to_kept), kept)
        chain_rule(sums, kept, words)
        if keeps:
            unrolled(n_words, store_one, at, words)

    @device
    def backward(shared, unit, dl_doutputs, params):
        if keeps:
            unrolled(n_outputs, store_one, np.uint64(unit + of_output), dl_doutputs)
        words, sums = uint32_view(local_array(n_words)), local_array(n_sums)
        here = matrix_of(n_hidden, n_forward, n_hidden - 1, shared, params)
        last_product(dl_doutputs, here + of_hidden(lane_number(here)), sums)
        chain_rule_and_keep(np.uint64(unit + of_last), sums, words)
        k = np.uint32(n_hidden - 1)
        while k > 0:
            turn = n_forward + n_hidden - k
            here = matrix_of(k, turn, k - 1, shared, params)
            middle_product(words, here + of_hidden(lane_number(here)), sums)
            k -= 1
            at = np.uint64(unit + of_first_hidden + np.uint64(k) * layer_bytes)
            chain_rule_and_keep(at, sums, words)
        if to_features:
            dl_dfeatures = uint32_view(local_array(n_features))
            feature_sums = local_array(n_feature_sums)
            here = matrix_of(0, n_forward + n_hidden, 0, shared, params)
            first_product(words, here + of_first(lane_number(here)), feature_sums)
            convert(feature_sums, dl_dfeatures)
            unrolled(n_features, store_one, np.uint64(unit + of_features), dl_dfeatures)

    return backward
