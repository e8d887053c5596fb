"""First kernel of wide training: forward, loss, backward; all but the gradients of weights.

A block has the weights in shared memory, and each of its warps takes one unit of 32 samples after
the other, waiting for no other warp if all weights are there: a lane encodes its sample, the warp
multiplies both fragments through all layers, forth and back, and a lane scatters the gradients of
its features, or takes them back to its inputs.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.keep import load_given
from numbanet.cuda.block.layout import FRAGMENTS
from numbanet.cuda.block.outputs import Wanted, output_gradient
from numbanet.cuda.block.sample_gradients import Destination, Sums, take_back
from numbanet.cuda.block.samples import encode_in_words
from numbanet.cuda.block.weights import end_turns, load_weights
from numbanet.cuda.launch.rows import read_row
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    block_index,
    blocks_per_grid,
    thread_index,
    warp_sum,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.workspace import PassOptions
from numbanet.cuda.tables.largest import note_in_batch
from numbanet.cuda.wide.layout import BLOCK_BYTES, MATRIX_BYTES, ROW_BYTES, WideLayout
from numbanet.cuda.wide.network import backward, forward
from numbanet.device import (
    ZERO,
    device,
    four_from,
    lane_number,
    local_array,
    nothing,
    opaque,
    set_four,
    thread_index_for,
    uint32_view,
    unrolled,
)
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import float_vector
from numbanet.tiles.copies import PIECE_HALVES
from numbanet.tiles.fragments import ROWS
from numbanet.tiles.instructions import (
    load_words_from,
    shared_memory,
    store_words_to,
    wait_for_copies,
    warp_barrier,
)

LANES = WARP


@cache
def lane_row(width: int):
    """Device function lane -> offset of its sample's row in a matrix of a unit.

    Pieces of 8 halves follow each other at every second of a block's 8 x 8 matrices.
    """
    fragment_bytes = BLOCK_BYTES * (width // ROWS)
    rows, eight = ROWS, 8

    @device
    def lane_row(lane):
        of_16 = lane % rows
        place = lane // rows * fragment_bytes + of_16 // eight * MATRIX_BYTES
        return np.uint64(place + of_16 % eight * ROW_BYTES)

    return lane_row


@device
def store_piece(k, address, words):
    i = 4 * k
    piece = four_from(words, i)
    store_words_to(np.uint64(address + np.uint64(2 * MATRIX_BYTES * k)), piece)


@device
def load_piece(k, address, words):
    piece, i = load_words_from(np.uint64(address + np.uint64(2 * MATRIX_BYTES * k))), 4 * k
    set_four(words, i, piece)


@cache
def wide_training_kernel(
    layout: WideLayout,
    precision: str,
    loss: AbstractLoss | None,
    options: PassOptions,
):
    """(inputs, n, first, n_all, weights, encoding's parameters, targets, pdf, given, scale, units,
    scatter, factor, largest, partial sums, inputs' gradients, unscaled).

    For samples `first` ... of n_all. The encoding's gradients are multiplied by `factor` and added,
    the inputs' are multiplied by `unscaled` and written; without either nothing goes back. Kept
    features are as in the fused kernel.
    """
    encoding, network = layout.model.encoding, layout.model.network
    param_gradients, input_gradients = options.param_gradients, options.input_gradients
    n_dims, n_features = encoding.n_dims, layout.widths[0]
    read, features_row = read_row(n_dims), lane_row(n_features)
    n_feature_words, n_pieces = n_features // 2, n_features // PIECE_HALVES
    load, encode = load_weights(layout.block), encode_in_words(encoding, precision, options.given)
    load_words = load_given(options.kept[0], options.given) if options.given else nothing
    note = note_in_batch(*options.kept, precision) if options.notes else nothing
    wants_features = options.wants_features(encoding)
    goes_back = param_gradients or input_gradients
    multiply = forward(layout, precision, keeps=goes_back)
    back = nothing
    if goes_back:
        back = backward(layout, precision, wants_features, keeps=param_gradients)
    features_back = take_back(encoding, precision, options, n_private=0)
    gradient = output_gradient(layout, precision, loss, options)
    n_sums = network.padded_output_dims // 2  # of a fragment
    n_words, n_all_sums, n_all_words = n_sums // 2, FRAGMENTS * n_sums, FRAGMENTS * n_sums // 2
    n_warps, unit_bytes = layout.n_warps, np.uint64(layout.unit_bytes)
    of_gradients, whole = np.uint64(layout.gradients[0]), layout.whole // WARP
    whole_samples = layout.whole
    n_turns = layout.n_hidden + 1 + (layout.n_hidden if goes_back else 0) + wants_features
    end = end_turns(layout.block, n_turns)

    @device
    def of_fragment(k, lane, i, n, sums, wanted, words, total):
        mine, to = sums[n_sums * k : n_sums * (k + 1)], words[n_words * k : n_words * (k + 1)]
        total[0] += gradient(lane, i + ROWS * k, n, mine, wanted, to)

    # A lane's sample and its number; where the unit is, and in it the row of its features. Opaque,
    # so that they are recomputed each time and hold no registers in between.
    @device
    def places(unit, units):
        sample = opaque(unit * LANES + lane_number(unit))
        lane = sample % LANES
        here = np.uint64(units + np.uint64(sample // LANES) * unit_bytes)
        return sample, lane, here, np.uint64(here + features_row(lane))

    @device
    def add_to_sum(address, thread, n, value):  # the warp's, of the loss: a register is worth more
        of_warp, sums = warp_sum(value), float_vector(address, n)
        if thread % LANES == 0:
            sums[block_index() * n_warps + thread // LANES] += of_warp

    def wide_training(
        pinputs: Address, n: UInt, first: UInt, n_all: UInt, pweights: Address, pparams: Address,
        ptargets: Address, ppdf: Address, pgiven: Address, scale: Float, punits: Address,
        pscatter: Address, factor: Float, plargest: Address, psums: Address, pdl_dinput: Address,
        unscaled: Float,
    ):  # fmt: skip
        thread, shared = thread_index(), shared_memory()
        wanted, to = (
            Wanted(ptargets, ppdf, pgiven, scale),
            Destination(pdl_dinput, unscaled, factor),
        )
        sums_of_features = Sums(pscatter, np.uint32(0), ZERO)
        load(thread, pweights, shared)
        if thread % LANES == 0:
            float_vector(psums, n)[block_index() * n_warps + thread // LANES] = ZERO
        wait_for_copies()
        barrier()
        # Beyond the last sample it is the last one again, with a gradient of zero.
        unit = block_index() * n_warps + thread // LANES
        while unit // whole * whole_samples < n:
            i = unit * LANES
            sample, lane, here, row = places(unit, punits)
            mine = np.uint64(here + np.uint64(4 * lane))
            x, words = local_array(n_dims), uint32_view(local_array(n_feature_words))
            known = min(sample, n - 1)
            read(pinputs, known * n_dims, x)
            load_words(words, first + sample if sample < n else n_all, n_all, pscatter)
            encode(x, pparams, words)
            unrolled(n_pieces, store_piece, row, words)
            warp_barrier()
            total = local_array(1)
            total[0] = ZERO
            sums, dl_doutputs = local_array(n_all_sums), uint32_view(local_array(n_all_words))
            multiply(shared, mine, sums, pweights)
            unrolled(FRAGMENTS, of_fragment, lane, i, n, sums, wanted, dl_doutputs, total)
            add_to_sum(psums, thread_index_for(unit), n, total[0])
            back(shared, mine, dl_doutputs, pweights)
            end(shared, pweights)
            if wants_features:
                warp_barrier()
                sample, lane, _, row = places(unit, punits)
                dl_dfeatures = uint32_view(local_array(n_feature_words))
                unrolled(n_pieces, load_piece, np.uint64(row + of_gradients), dl_dfeatures)
                note(dl_dfeatures, lane, plargest)
                if sample < n:
                    number, given = first + sample, (pinputs, pparams)
                    features_back(dl_dfeatures, sample, number, n_all, given, to, sums_of_features)
            unit += blocks_per_grid() * n_warps

    what = "training_to_inputs" if input_gradients else "training"
    wide_training.__qualname__ = f"wide_{what}_{type(encoding).__name__}_{precision}"
    return wide_training
