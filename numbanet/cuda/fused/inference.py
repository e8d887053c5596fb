"""Kernel that evaluates a whole network in one launch.

A block keeps the weights in shared memory and takes one tile of samples after the other: every lane
writes the features of its sample to shared memory, and the warps multiply their rows through all
layers.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.keep import load_given
from numbanet.cuda.block.layout import FRAGMENTS, FusedLayout
from numbanet.cuda.block.network import (
    forward,
)
from numbanet.cuda.block.outputs import beyond, first_output, for_each_output
from numbanet.cuda.block.samples import encode_in_words, store_pairs
from numbanet.cuda.block.weights import end_turns, load_weights
from numbanet.cuda.launch.rows import read_row
from numbanet.cuda.launch.threads import (
    barrier,
    block_index,
    blocks_per_grid,
    thread_index,
)
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.memory.workspace import PassOptions
from numbanet.device import (
    device,
    lane_number,
    local_array,
    nothing,
    uint32_view,
    unrolled,
)
from numbanet.storage.access import store, store_pair
from numbanet.storage.views import ITEM_SIZES, VECTORS
from numbanet.tiles.fragments import ROWS
from numbanet.tiles.instructions import shared_memory, wait_for_copies, warp_barrier

LANES, LOG2_LANES = np.uint32(32), np.uint32(5)
NOTHING = PassOptions()


@cache
def features_of_lane(
    layout: FusedLayout, precision: str, options: PassOptions, read_as: str | None = None
):
    """Device function (inputs, i, n, params, kept, address): write the features of sample i of n.

    Given ones are read from `kept`; `read_as` is the storage of params in encode_in_words. Beyond
    the last sample others are those of the last one again, whose results are not written.
    """
    encoding, given = layout.model.encoding, options.given
    n_dims, n_words = encoding.n_dims, encoding.n_outputs // 2
    load = load_given(options.kept[0], given) if given else nothing
    to_words = encode_in_words(encoding, precision, given, read_as)
    store_row = store_pairs(2 * n_words, layout.piece_pitch)
    read = read_row(n_dims)

    @device
    def features_of_lane(inputs, i, n, params, kept, address):
        x, row = local_array(n_dims), min(i, n - 1)
        words = uint32_view(local_array(n_words))
        load(words, i, n, kept)
        read(inputs, row * n_dims, x)
        to_words(x, params, words)
        store_row(address, words)

    return features_of_lane


@cache
def inference_kernel(
    layout: FusedLayout, precision: str, storage: str = "float32", options: PassOptions = NOTHING,
    read_as: str | None = None,
):  # fmt: skip
    """(inputs, n, weights, encoding's parameters, outputs, given features, rows of a tile).

    Warps beyond these rows have no samples, so that small batches are divided among more blocks.
    `storage` is that of the outputs; of the options, what is given counts. Parameters are of the
    precision, or `read_as` float32, which are rounded to it; see rounds_float32.
    """
    network = layout.model.network
    n_outputs, n_sums = network.n_output_dims, layout.widths[-1] // 2
    act = network.activations[1].forward
    read_as = read_as or precision
    load = load_weights(layout, None if read_as == precision else precision)
    source = features_of_lane(layout, precision, options, read_as)
    multiply, n_all_sums = forward(layout, precision, FRAGMENTS), FRAGMENTS * n_sums
    features_rows, pitch_0, n_threads = layout.rows[0], layout.pitches[0], layout.n_threads
    end = end_turns(layout, network.n_hidden_layers + 1)

    @device
    def write(e, i, column, context):
        n, sums, outputs = context
        if i < n:
            store(outputs, place(e), act(sums[e]))

    @device
    def write_pair(e, i, column, context):  # a lane's outputs of a row are neighbours
        n, sums, outputs = context
        if e % 2 == 0 and i < n:
            store_pair(outputs, place(e), act(sums[e]), act(sums[e + 1]))

    write_outputs = for_each_output(n_outputs, write)
    has_pairs, pair_bytes = n_outputs % 2 == 0, np.uint64(2 * ITEM_SIZES[storage])
    write_pairs = for_each_output(n_outputs, write_pair) if has_pairs else nothing
    first_of, place = first_output(n_outputs, ITEM_SIZES[storage]), beyond(n_outputs)
    vector = VECTORS[storage]

    @device
    def write_fragment(k, lane, row, n, sums, poutputs):
        first, mine = row + ROWS * k, sums[n_sums * k : n_sums * (k + 1)]
        outputs = vector(first_of(poutputs, lane, first), n)
        if has_pairs and poutputs % pair_bytes == np.uint64(0):
            write_pairs(lane, first, (n, mine, outputs))
        else:
            write_outputs(lane, first, (n, mine, outputs))

    def fused_inference(
        pinputs: Address, n: UInt, pweights: Address, pparams: Address, poutputs: Address,
        pgiven: Address, tile_rows: UInt,
    ):  # fmt: skip
        thread, shared = thread_index(), shared_memory()
        load(thread, pweights, shared)
        wait_for_copies()
        barrier()
        if thread >= tile_rows:
            return
        warp, tile = thread >> LOG2_LANES, block_index() * tile_rows
        while tile < n:
            lane = lane_number(tile)
            first = warp * LANES
            row = first + lane
            address = shared + features_rows + row * pitch_0
            source(pinputs, tile + row, n, pparams, pgiven, address)
            warp_barrier()
            sums = local_array(n_all_sums)
            multiply(shared, first, lane, sums, pweights)
            first = tile + first
            unrolled(FRAGMENTS, write_fragment, lane, first, n, sums, poutputs)
            end(shared, pweights)
            warp_barrier()
            tile += blocks_per_grid() * n_threads

    kind = type(layout.model.encoding).__name__
    of_others = "" if read_as == precision else f"_of_{read_as}"
    fused_inference.__qualname__ = f"fused_inference_{kind}_{precision}{of_others}"
    return fused_inference
