"""Kernel that trains a whole network in one launch: as inference.py, and back.

Behind the layers of each tile come the loss, the way back, the gradients of the weights, which stay
in registers until the last tile, and the gradients of the features, which each lane scatters, or
takes back to its inputs.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FRAGMENTS, FusedLayout
from numbanet.cuda.block.network import features_backward, forward, hidden_backward
from numbanet.cuda.block.outputs import Wanted, output_gradient
from numbanet.cuda.block.sample_gradients import Destination, Sums, take_back
from numbanet.cuda.block.samples import load_pairs
from numbanet.cuda.block.weight_gradients import flush_gradients, weight_gradients
from numbanet.cuda.block.weights import load_weights
from numbanet.cuda.fused.inference import LANES, LOG2_LANES, features_of_lane
from numbanet.cuda.fused.private_sums import PrivateSums, clear, flush, most_bits, scale_of_warp
from numbanet.cuda.launch.threads import (
    barrier,
    block_index,
    blocks_per_grid,
    group_barrier,
    thread_index,
    warp_sum,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.slots import slot_address
from numbanet.cuda.memory.workspace import PassOptions
from numbanet.cuda.tables.largest import largest_of_block, note_in_block
from numbanet.device import (
    ZERO,
    blocks_per_grid_for,
    device,
    local_array,
    nothing,
    opaque,
    thread_index_for,
    uint32_view,
    unrolled,
)
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import float_vector
from numbanet.tiles.fragments import ROWS, store_rows
from numbanet.tiles.instructions import shared_memory, wait_for_copies, warp_barrier
from numbanet.tiles.warpgroups import fence_for_warpgroups

NOISE = 0x85EBCA6B  # odd, so that all samples differ


@cache
def outputs_of_tile(
    layout: FusedLayout, precision: str, loss: AbstractLoss | None, options: PassOptions
):
    """Device function (shared, warp, lane, tile, n, wanted, total): forward, and the loss.

    The gradients of the outputs take their place in shared memory; the loss is added to total.
    """
    multiply, gradient = (
        forward(layout, precision),
        output_gradient(layout, precision, loss, options),
    )
    n_sums, n_words = layout.widths[-1] // 2, layout.widths[-1] // 4
    outputs_rows, pitch = layout.rows[len(layout.widths) - 1], layout.row_pitches[-1]
    store = store_rows(layout.widths[-1] // ROWS, pitch, layout.piece_pitch)

    @device
    def fragment(k, shared, warp, lane, tile, n, wanted, total):
        row = warp * LANES + ROWS * k
        sums, words = local_array(n_sums), uint32_view(local_array(n_words))
        multiply(shared, row, lane, sums, np.uint64(0))
        total[0] += gradient(lane, tile + row, n, sums, wanted, words)
        store(shared + (outputs_rows + row * pitch), lane, words)

    @device
    def outputs_of_tile(shared, warp, lane, tile, n, wanted, total):
        for k in range(FRAGMENTS):
            fragment(k, shared, warp, lane, tile, n, wanted, total)

    return outputs_of_tile


@cache
def features_of_tile(
    layout: FusedLayout, precision: str, options: PassOptions, sums_of_block: PrivateSums | None
):
    """Device function (block, address, i, n, given, to, sums): backpropagate gradients of features.

    block = (shared memory, warp, lane); address is where the lane's row of features is, i its
    sample; sums are an address, the table in shared memory, and the bits of its numbers.
    """
    if not options.wants_features(layout.model.encoding):
        return nothing
    to_features, n_words = features_backward(layout, precision), layout.widths[0] // 2
    encoding = layout.model.encoding
    load_row = load_pairs(encoding.n_outputs, layout.piece_pitch)
    back = take_back(encoding, precision, options, layout.n_private)
    is_private = sums_of_block is not None
    scale_of_sums = scale_of_warp(sums_of_block) if is_private else nothing
    note = note_in_block(*options.kept, precision) if options.notes else nothing
    noted_place = layout.rows[-2]

    @device
    def fragment(k, shared, warp, lane):
        to_features(shared, warp * LANES + ROWS * k, lane)

    @device
    def features_of_tile(block, address, i, n, given, to, sums):
        (shared, warp, lane), (gradients, table, n_bits) = block, sums
        for k in range(FRAGMENTS):
            fragment(k, shared, warp, lane)
        warp_barrier()
        words, scale = uint32_view(local_array(n_words)), ZERO
        load_row(address, words)
        if is_private:
            scale = scale_of_sums(words, to.factor, n_bits, lane, shared)
        note(words, lane, shared + noted_place)
        if i < n:
            noise = words[0] ^ (i * NOISE)
            back(words, i, i, n, given, to, Sums(gradients, (table, noise), scale))
        warp_barrier()

    return features_of_tile


@cache
def training_kernel(
    layout: FusedLayout, precision: str, loss: AbstractLoss | None, options: PassOptions
):
    """(inputs, n, weights, encoding's parameters, targets, pdf, given, scale, unscaled,
    gradients, scatter, factor, largest, partial sums, inputs' gradients, slot).

    Weights' gradients are multiplied by `unscaled`, the encoding's by `factor`, and added; or those
    of weights are written, `slot` numbers apart for each group that has samples, in the order of
    their first. The inputs' are multiplied by `unscaled` and written. Those of kept features are
    written to `scatter`, from where given ones are read before, and the largest ones to `largest`;
    then the encoding's are left to others.
    """
    network, encoding = layout.model.network, layout.model.encoding
    param_gradients, is_private = options.param_gradients, False
    load, source = load_weights(layout), features_of_lane(layout, precision, options)
    steps, flushes = steps_back(layout, precision, options)
    clear_sums = bits_of_numbers = flush_sums = nothing
    sums_of_block, private = None, layout.rows[-1]
    clear_largest = bring_largest = nothing
    notes, noted_place = options.notes, layout.rows[-2]
    if notes:
        clear_largest, bring_largest = largest_of_block(options.kept[1] - options.kept[0])
    if options.scatters(encoding) and layout.n_private > 0:
        is_private, sums_of_block = True, PrivateSums(layout, precision, options.storage)
        clear_sums, flush_sums = clear(sums_of_block), flush(sums_of_block)
        bits_of_numbers = most_bits(sums_of_block)
    fence = fence_for_warpgroups if layout.in_warpgroups else nothing
    outputs = outputs_of_tile(layout, precision, loss, options)
    features = features_of_tile(layout, precision, options, sums_of_block)
    n_all_sums, n_network_params = max(layout.first_sums[-1], 1), network.n_params
    features_rows, pitch_0 = layout.rows[0], layout.row_pitches[0]
    group_threads, step = layout.group_threads, layout.n_threads

    @device
    def set_zero(k, sums):
        sums[k] = ZERO

    @device
    def unscale(k, sums, factor):
        sums[k] *= factor

    @device
    def add_up_loss(psums, n, thread, lane, value):
        of_warp, sums = warp_sum(value), float_vector(psums, n)
        if lane == 0:
            number = thread + block_index() * step
            sums[number >> LOG2_LANES] = of_warp

    @device
    def flush_block(thread, shared, pscatter, plargest):
        if is_private or notes:
            barrier()
            flush_sums(thread, shared, pscatter)
            bring_largest(thread, shared + noted_place, plargest)

    def fused_training(
        pinputs: Address, n: UInt, pweights: Address, pparams: Address, ptargets: Address,
        ppdf: Address, pgiven: Address, scale: Float, unscaled: Float, pgradients: Address,
        pscatter: Address, factor: Float, plargest: Address, psums: Address, pdl_dinput: Address,
        slot: UInt,
    ):  # fmt: skip
        thread, shared = thread_index(), shared_memory()
        warp, lane = thread >> LOG2_LANES, thread & 31
        wanted, given = Wanted(ptargets, ppdf, pgiven, scale), (pinputs, pparams)
        to = Destination(pdl_dinput, unscaled, factor)
        load(thread, pweights, shared)
        table = shared + private
        clear_largest(thread, shared + noted_place)
        if is_private:
            clear_sums(thread, shared)
        dl_dweights, total = local_array(n_all_sums), local_array(1)
        unrolled(n_all_sums, set_zero, dl_dweights)
        total[0] = ZERO
        wait_for_copies()
        fence()
        barrier()
        # Each group has its own tiles. Of these, `tile` is the first sample, less the group's first
        # row: adding the number of a row gives that of its sample.
        first_row = thread // group_threads * group_threads
        tile = block_index() * group_threads
        tile += first_row * (blocks_per_grid() - 1)
        n_bits = np.int32(0)
        if is_private:
            n_tiles = n // (blocks_per_grid() * step) + 1
            n_bits = bits_of_numbers(n_tiles * step)
        while tile + first_row < n:
            i = tile + thread
            address = opaque(np.uint32(thread_index_for(tile) * pitch_0)) + (shared + features_rows)
            source(pinputs, i, n, pparams, pscatter, address)
            warp_barrier()
            outputs(shared, warp, lane, tile, n, wanted, total)
            steps(shared, warp, lane, dl_dweights)
            features((shared, warp, lane), address, i, n, given, to, (pscatter, table, n_bits))
            tile += blocks_per_grid_for(tile) * step
        # The following is read again: it held no register while the loop ran.
        thread, n_blocks = thread_index_for(tile), blocks_per_grid_for(tile)
        warp, lane = thread >> LOG2_LANES, thread & 31
        group = np.uint32(thread // group_threads)
        number = np.uint32(block_index() + group * n_blocks)
        if param_gradients and number * group_threads < n:  # there were tiles
            unrolled(n_all_sums, unscale, dl_dweights, unscaled)
            mine = slot_address(pgradients, number, slot)
            flushes(warp, lane, dl_dweights, float_vector(mine, n_network_params))
        flush_block(thread, shared, pscatter, plargest)
        add_up_loss(psums, n, thread, lane, total[0])

    what = "training_to_inputs" if options.input_gradients else "training"
    fused_training.__qualname__ = f"fused_{what}_{type(encoding).__name__}_{precision}"
    return fused_training


def steps_back(layout: FusedLayout, precision: str, options: PassOptions):
    """Device functions (shared, warp, lane, sums) that backpropagate to the first layer.

    And (warp, lane, sums, gradients): add the gradients of all weights to global memory, or write
    them.
    """
    param_gradients = options.param_gradients
    fence = fence_for_warpgroups if layout.in_warpgroups and param_gradients else nothing

    def then(before, k):
        gradients = weight_gradients(layout, precision, k) if param_gradients else nothing
        through = hidden_backward(layout, precision, k) if k > 0 else nothing

        @device
        def fragment(j, shared, warp, lane):
            through(shared, warp * LANES + ROWS * j, lane)

        @device
        def step(shared, warp, lane, sums):
            before(shared, warp, lane, sums)
            fence()
            wait(warp)  # for the gradients of layer k + 1
            gradients(shared, warp, lane, sums)
            wait(warp)  # now those of layer k may replace its activations
            for j in range(FRAGMENTS):
                fragment(j, shared, warp, lane)

        return step

    def then_flush(before, k):
        flush = flush_gradients(layout, k, options.in_slots)

        @device
        def flush_all(warp, lane, sums, gradients):
            before(warp, lane, sums, gradients)
            flush(warp, lane, sums, gradients)

        return flush_all

    group_threads, n_warps = np.uint32(layout.group_threads), layout.n_warps
    in_groups = layout.n_groups > 1

    @device
    def wait(warp):
        if in_groups:
            group_barrier(warp // n_warps + 1, group_threads)
        else:
            barrier()

    steps, flushes = nothing, nothing
    for k in reversed(range(layout.model.network.n_hidden_layers + 1)):
        steps, flushes = then(steps, k), then_flush(flushes, k)
    return steps, flushes
