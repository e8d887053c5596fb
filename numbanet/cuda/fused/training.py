"""The kernel that trains a whole network in one launch: as inference.py, and back.

Behind the layers of each tile come the loss, the way back, the gradients of the weights, which stay
in registers until the last tile, and the gradients of the features, which each lane scatters, or
takes back to its inputs.
"""

from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FRAGMENTS, FusedLayout
from numbanet.cuda.block.network import (
    features_backward,
    flush_gradients,
    forward,
    hidden_backward,
    weight_gradients,
)
from numbanet.cuda.block.outputs import output_gradient
from numbanet.cuda.block.samples import (
    encode_backward,
    encode_backward_input,
    load_pairs,
)
from numbanet.cuda.block.weights import load_weights
from numbanet.cuda.fused.inference import LANES, LOG2_LANES, features_of_lane
from numbanet.cuda.fused.private_sums import PrivateSums, clear, flush, most_bits, scale_of_warp
from numbanet.cuda.launch.rows import read_row
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
from numbanet.cuda.tables.keep import keep_words
from numbanet.device import (
    ZERO,
    device,
    local_array,
    nothing,
    thread_index_for,
    uint32_view,
    unrolled,
)
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import float_vector
from numbanet.tiles.fragments import ROWS, store_rows
from numbanet.tiles.instructions import shared_memory, wait_for_copies, warp_barrier

NOISE = 0x85EBCA6B  # odd, so that all samples differ


@cache
def training_kernel(
    layout: FusedLayout,
    precision: str,
    loss: AbstractLoss | None,
    options: PassOptions,
):
    """(inputs, n, weights, encoding's parameters, targets, pdf, given, scale, unscaled,
    gradients, scatter, factor, partial sums, inputs' gradients, slot).

    Weights' gradients are multiplied by `unscaled`, the encoding's by `factor`, and added; those of
    weights `slot` numbers apart for each group that has samples, in the order of their first. The
    inputs' are multiplied by `unscaled` and written. Those of kept features are written to
    `scatter`, and the encoding's are left to others.
    """
    network = layout.model.network
    param_gradients, input_gradients = options.param_gradients, options.input_gradients
    n_hidden, storage = network.n_hidden_layers, options.storage
    n_dims, n_params = layout.model.encoding.n_dims, layout.model.encoding.n_params
    load, source = load_weights(layout), features_of_lane(layout, precision)
    multiply = forward(layout, precision)
    gradient = output_gradient(layout, precision, loss, options)
    steps, flushes = steps_back(layout, precision, param_gradients)
    to_features = features_backward(layout, precision)
    keep = keep_words(*options.kept) if options.kept else nothing
    scatters = param_gradients and n_params > 0 and options.kept is None
    encoding, n_private = layout.model.encoding, layout.n_private
    scatter = encode_backward(encoding, precision, storage, n_private) if scatters else nothing
    to_inputs = encode_backward_input(encoding, precision) if input_gradients else nothing
    wants_features = scatters or options.kept is not None or input_gradients
    is_private, private = scatters and n_private > 0, layout.rows[-1]
    read, load_row, n_words = (
        read_row(n_dims),
        load_pairs(encoding.n_outputs),
        layout.widths[0] // 2,
    )
    clear_sums = bits_of_numbers = scale_of_sums = flush_sums = nothing
    if is_private:
        sums_of_block = PrivateSums(layout, precision, storage)
        clear_sums, flush_sums = clear(sums_of_block), flush(sums_of_block)
        bits_of_numbers, scale_of_sums = most_bits(sums_of_block), scale_of_warp(sums_of_block)
    n_all_sums, n_sums = max(layout.first_sums[-1], 1), layout.widths[-1] // 2
    features_rows, pitch_0 = layout.rows[0], layout.pitches[0]
    group_threads, step = layout.group_threads, layout.n_threads
    outputs_rows, out_pitch = layout.rows[n_hidden + 1], layout.pitches[-1]
    store, n_output_words = store_rows(layout.widths[-1] // ROWS, out_pitch), n_sums // 2
    n_network_params = network.n_params

    @device
    def forth(k, shared, warp, lane, tile, n, targets, pdf, given, scale, total):
        row = warp * LANES + ROWS * k
        sums, words = local_array(n_sums), uint32_view(local_array(n_output_words))
        multiply(shared, row, lane, sums, np.uint64(0))
        i = tile + row
        total[0] += gradient(lane, i, n, sums, targets, pdf, given, scale, words)
        place = outputs_rows + row * out_pitch
        store(shared + place, lane, words)

    @device
    def back(k, shared, warp, lane):
        to_features(shared, warp * LANES + ROWS * k, lane)

    @device
    def set_zero(k, sums):
        sums[k] = ZERO

    @device
    def unscale(k, sums, factor):
        sums[k] *= factor

    def fused_training(
        pinputs: Address, n: UInt, pweights: Address, pparams: Address, ptargets: Address,
        ppdf: Address, pgiven: Address, scale: Float, unscaled: Float, pgradients: Address,
        pscatter: Address, factor: Float, psums: Address, pdl_dinput: Address, slot: UInt,
    ):  # fmt: skip
        thread, shared = thread_index(), shared_memory()
        warp, lane = thread >> LOG2_LANES, thread & 31
        load(thread, pweights, shared)
        table = shared + private
        if is_private:
            clear_sums(thread, shared)
        dl_dweights, total = local_array(n_all_sums), local_array(1)
        unrolled(n_all_sums, set_zero, dl_dweights)
        total[0] = ZERO
        address = shared + features_rows + thread * pitch_0
        wait_for_copies()
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
        has_tiles = tile + first_row < n
        while tile + first_row < n:
            i = tile + thread
            source(pinputs, i, n, pparams, address)
            warp_barrier()
            for k in range(FRAGMENTS):
                forth(k, shared, warp, lane, tile, n, ptargets, ppdf, pgiven, scale, total)
            steps(shared, warp, lane, dl_dweights)
            if wants_features:
                for k in range(FRAGMENTS):
                    back(k, shared, warp, lane)
                warp_barrier()
                words, sums_scale = uint32_view(local_array(n_words)), ZERO
                load_row(address, words)
                if is_private:
                    sums_scale = scale_of_sums(words, factor, n_bits, lane, shared)
                if i < n:
                    # Reads the inputs by itself, lest all that is computed of them stays in use.
                    to_inputs(pinputs, pparams, words, unscaled, i, pdl_dinput)
                    keep(words, i, n, pscatter)
                    x = local_array(n_dims)
                    read(pinputs, i * n_dims, x)
                    noise = words[0] ^ (i * NOISE)
                    to = table, noise
                    scatter(x, pparams, words, factor, i, n, pscatter, to, sums_scale)
                warp_barrier()
            tile += blocks_per_grid() * step
        thread = thread_index_for(tile)  # anew: it held no register while the loop ran
        warp, lane = thread >> LOG2_LANES, thread & 31
        if param_gradients and has_tiles:
            unrolled(n_all_sums, unscale, dl_dweights, unscaled)
            group = np.uint32(thread // group_threads)
            number = np.uint32(block_index() + group * blocks_per_grid())
            mine = slot_address(pgradients, number, slot)
            flushes(warp, lane, dl_dweights, float_vector(mine, n_network_params))
        if is_private:
            barrier()
            flush_sums(thread, shared, pscatter)
        sums = float_vector(psums, n)
        of_warp = warp_sum(total[0])
        if lane == 0:
            number = thread + block_index() * step
            sums[number >> LOG2_LANES] = of_warp

    what = "training_to_inputs" if input_gradients else "training"
    fused_training.__qualname__ = f"fused_{what}_{type(encoding).__name__}_{precision}"
    return fused_training


def steps_back(layout: FusedLayout, precision: str, param_gradients: bool):
    """Device functions (shared, warp, lane, sums): the way back to the first layer's gradients.

    And (warp, lane, sums, gradients): add the gradients of all weights to global memory.
    """

    def then(before, k):
        gradients = weight_gradients(layout, precision, k) if param_gradients else nothing
        through = hidden_backward(layout, precision, k) if k > 0 else nothing

        @device
        def fragment(j, shared, warp, lane):
            through(shared, warp * LANES + ROWS * j, lane)

        @device
        def step(shared, warp, lane, sums):
            before(shared, warp, lane, sums)
            wait(warp)  # the gradients of layer k + 1 are there
            gradients(shared, warp, lane, sums)
            wait(warp)  # now those of layer k may replace its activations
            for j in range(FRAGMENTS):
                fragment(j, shared, warp, lane)

        return step

    def then_flush(before, k):
        flush = flush_gradients(layout, k)

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
