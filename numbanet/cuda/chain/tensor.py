"""Products of a layer on tensor cores, in float16 and bfloat16; compute capability 8.0.

Results of the forward and backward products pass through shared memory, so that they leave in 16
bytes of a row each, as what the chain rule wants comes: in registers, a row has only 16 bytes among
four lanes, half of what memory moves at a time.

Counted per block of 128 samples, forward at width 128: 1850 instructions of each scheduler, 2560
accesses of shared memory, 64 KiB between global memory and the multiprocessor besides 32 KiB of
weights, which is 3200 cycles of an H200. Transfers dominate the time, so no results are kept
for the next layer here; the fused engine does that.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.activations import Activation
from numbanet.cuda.chain.biases import (
    add_to_tensor_sums,
    address_alone,
    address_of_both,
    with_bias,
)
from numbanet.cuda.chain.products import Product, block_position
from numbanet.cuda.chain.tensor_block import (
    Operand,
    lane_position,
    n_threads_of,
    pair_of_sums,
    stage_bytes,
    tensor_product,
    warp_position,
    warp_product,
)
from numbanet.cuda.chain.tensor_tiles import TileLayout, place_in_tile, tile_loader, tile_storer
from numbanet.cuda.launch.threads import barrier, block_index_z
from numbanet.cuda.memory.slots import slot_address
from numbanet.device import belongs_to, device, local_array, nothing, unrolled
from numbanet.storage.access import reduce_one, reduce_pair
from numbanet.storage.halves import (
    bfloat16_pair_to_floats,
    float16_pair_to_floats,
    floats_to_bfloat16_pair,
    floats_to_float16_pair,
)
from numbanet.storage.views import float_vector
from numbanet.tiles.instructions import load_word, shared_memory, store_word

SIDES = 64, 128  # of tiles of the result; samples are taken by the larger one
N_SAMPLES = 128
DEPTH, SAMPLE_DEPTH = 32, 64  # of a stage, where the depth is a width, and where it is the samples
RESIDENT_THREADS = 512  # of a multiprocessor
MAX_REGISTERS = 65536 // RESIDENT_THREADS
NOTHING, ONE = np.uint32(0), 1
TO_WORD = {"float16": floats_to_float16_pair, "bfloat16": floats_to_bfloat16_pair}
FROM_WORD = {"float16": float16_pair_to_floats, "bfloat16": bfloat16_pair_to_floats}


def side_for(size: int) -> int:
    """Side of the tiles for a side of the result."""
    return SIDES[size > SIDES[0]]


@cache
def through_tile(precision: str, layout: TileLayout, value):
    """Device function (tile, sums): fill a tile with value(place, low, high), pairs of numbers.

    Low and high are neighbouring sums, and place is the address of theirs in the tile.
    """
    to_word, address = TO_WORD[precision], place_in_tile(layout)
    position, pair_of = warp_position(layout.n_inner), pair_of_sums(layout.n_inner)
    n_pairs, eight_rows = layout.n_inner // 4, layout.offset(8)

    @device
    def put(j, tile, sums):
        i, row, column = pair_of(j)
        place = tile + (row * eight_rows + column * 16)
        low, high = value(place, sums[i], sums[i + 1])
        store_word(place, to_word(low, high))

    @device
    def through_tile(tile, sums):
        first_row, first_column = position()
        row, column = lane_position()
        row, column = row + first_row, column + first_column
        unrolled(n_pairs, put, tile + address(row, column), sums)

    return through_tile


@device
def as_it_is(place, low, high):
    return low, high


@cache
def finish_forward(precision: str, activation: Activation, layout: TileLayout):
    """Device function (tile, sums, y, kept, pitch, rows, columns): activate sums, write them."""
    act, from_input = activation.forward, activation.from_input
    store_tile = tile_storer(layout, n_threads_of(layout.n_outer))

    @device
    @belongs_to(f"{activation.name}.forward")
    def activated(place, low, high):
        return act(low), act(high)

    put_sums = through_tile(precision, layout, as_it_is)
    put_activated = through_tile(precision, layout, activated)

    @device
    def finish_forward(tile, sums, y, kept, pitch, rows, columns):
        if from_input:
            put_sums(tile, sums)
            barrier()
            store_tile(tile, kept, pitch, rows, columns)
            barrier()
        put_activated(tile, sums)
        barrier()
        store_tile(tile, y, pitch, rows, columns)

    return finish_forward


@cache
def finish_backward(precision: str, activation: Activation, layout: TileLayout):
    """Device function (tile, sums, dl_dx, kept, pitch, rows, columns): apply the chain rule.

    The tile holds the kept values.
    """
    act_backward, from_word = activation.backward, FROM_WORD[precision]
    store_tile = tile_storer(layout, n_threads_of(layout.n_outer))

    @device
    @belongs_to(f"{activation.name}.backward")
    def times_slope(place, low, high):
        first, second = from_word(load_word(place))
        return act_backward(low, first), act_backward(high, second)

    linear = is_linear(activation)
    put = through_tile(precision, layout, as_it_is if linear else times_slope)

    @device
    def finish_backward(tile, sums, dl_dx, kept, pitch, rows, columns):
        put(tile, sums)
        barrier()
        store_tile(tile, dl_dx, pitch, rows, columns)

    return finish_backward


def is_linear(activation: Activation) -> bool:
    """Whether the chain rule needs no kept values."""
    return activation.name == "None"


def result_layout(tile_rows: int) -> TileLayout:
    """Layout of the tile that the results of a block's samples pass through."""
    return TileLayout(tile_rows, N_SAMPLES)


def sample_product(
    precision: str, tile_rows: int, transposed: bool, loads_kept: bool, finish, biased=False
):
    """fma_products.sample_product on tensor cores, for one size of tiles."""
    address, add = address_alone, nothing
    if biased:
        address, add = address_of_both, add_to_tensor_sums(precision, N_SAMPLES)
    n_threads, layout = n_threads_of(tile_rows), result_layout(tile_rows)
    left = Operand(tile_rows, DEPTH, not transposed, is_left=True, any_address=True)
    right = Operand(N_SAMPLES, DEPTH, along_depth=False, is_left=False)
    of_warp, load_tile = warp_product(precision, left, right), tile_loader(layout, n_threads)
    multiply = tensor_product(of_warp, left, right)
    position = block_position(tile_rows, N_SAMPLES)
    n_sums = tile_rows * N_SAMPLES // n_threads
    n_stage_bytes = stage_bytes(left, right)
    offset = n_stage_bytes if loads_kept else 0  # the stages are free when the tile is written
    shared_bytes = max(n_stage_bytes, offset + layout.n_bytes)
    tile_offset = offset

    def sample_product(weights, x, y, kept, n_rows, depth, n, pitch):
        first_row, first_column = position(n_rows)
        rows, columns = (first_row, n_rows), (first_column, n)
        tile = shared_memory() + tile_offset
        if loads_kept:  # they arrive with the operands
            load_tile(tile, kept, pitch, rows, columns)
        sums = local_array(n_sums)
        a = (address(weights), n_rows if transposed else depth, first_row, n_rows)
        multiply(a, (x, pitch, first_column, n), (NOTHING, depth), sums)
        add(sums, first_row, n_rows, weights)
        finish(tile, sums, y, kept, pitch, rows, columns)

    kernel = with_bias(sample_product) if biased else sample_product
    return product_of(kernel, tile_rows, N_SAMPLES, DEPTH, shared_bytes)


def product_of(kernel, tile_rows: int, tile_columns: int, depth: int, shared_bytes: int) -> Product:
    n_threads = n_threads_of(tile_rows)
    n_resident = RESIDENT_THREADS // n_threads
    sizes = tile_rows, tile_columns, depth, n_threads, n_resident, shared_bytes
    return Product(kernel, *sizes, MAX_REGISTERS)


@cache
def forward_of_tile(
    precision: str, activation: Activation, tile_rows: int, biased: bool = False
) -> Product:
    finish = finish_forward(precision, activation, result_layout(tile_rows))
    product = sample_product(precision, tile_rows, False, False, finish, biased)
    what = f"{'biased_' if biased else ''}{tile_rows}_{activation.name}_{precision}"
    return product.named(f"tensor_forward_{what}")


def forward(precision: str, activation: Activation, fan_out: int, biased: bool = False) -> Product:
    """See fma_products.forward."""
    return forward_of_tile(precision, activation, side_for(fan_out), biased)


@cache
def backward_of_tile(precision: str, activation: Activation, tile_rows: int) -> Product:
    finish = finish_backward(precision, activation, result_layout(tile_rows))
    loads_kept = not is_linear(activation)
    product = sample_product(precision, tile_rows, True, loads_kept, finish)
    return product.named(f"tensor_backward_{tile_rows}_{activation.name}_{precision}")


def backward(precision: str, activation: Activation, fan_in: int) -> Product:
    """See fma_products.backward."""
    return backward_of_tile(precision, activation, side_for(fan_in))


def gradients_kernel(multiply: Callable, tile_rows: int, tile_columns: int) -> Callable:
    """Kernel of weight_gradients from the product of a block, of operands along the depth."""
    tile_position, position = block_position(tile_rows, tile_columns), warp_position(tile_columns)
    pair_of = pair_of_sums(tile_columns)
    n_pairs, n_sums = tile_columns // 4, tile_columns // 2

    @device
    def add_pair(j, dl_dweights, in_pairs, factor, place, shape, sums):
        (first_row, first_column), (fan_out, fan_in) = place, shape
        i, row, column = pair_of(j)
        o = first_row + 8 * row
        k = first_column + 8 * column
        if (o < fan_out) & (k < fan_in):
            at = o * fan_in + k
            low, high = factor * sums[i], factor * sums[i + 1]
            if in_pairs:
                reduce_pair(dl_dweights, at, low, high)
            else:
                reduce_one(dl_dweights, at, low)
                if k + ONE < fan_in:
                    reduce_one(dl_dweights, at + ONE, high)

    def weight_gradients(
        dl_dy, x, pdw, factor, fan_out, fan_in, n, pitch, n_each, n_parts, slot,
    ):  # fmt: skip
        part = block_index_z() % n_parts
        mine = slot_address(pdw, part, slot)
        dl_dweights = float_vector(mine, fan_out * fan_in)
        first_row, first_column = tile_position(fan_out)
        first_sample = part * n_each
        samples = first_sample, min(n, first_sample + n_each)
        in_pairs = ((fan_in & ONE) == NOTHING) & (mine % np.uint64(8) == np.uint64(0))
        sums = local_array(n_sums)
        a, b = (dl_dy, pitch, first_row, fan_out), (x, pitch, first_column, fan_in)
        multiply(a, b, samples, sums)
        warp_row, warp_column = position()
        row, column = lane_position()
        row += warp_row + first_row
        column += warp_column + first_column
        place, shape = (row, column), (fan_out, fan_in)
        unrolled(n_pairs, add_pair, dl_dweights, in_pairs, factor, place, shape, sums)

    return weight_gradients


@cache
def weight_gradients_of_tile(precision: str, tile_rows: int, tile_columns: int) -> Product:
    left = Operand(tile_rows, SAMPLE_DEPTH, along_depth=True, is_left=True)
    right = Operand(tile_columns, SAMPLE_DEPTH, along_depth=True, is_left=False)
    multiply = tensor_product(warp_product(precision, left, right), left, right)
    kernel = gradients_kernel(multiply, tile_rows, tile_columns)
    tile = tile_rows, tile_columns, SAMPLE_DEPTH
    product = product_of(kernel, *tile, stage_bytes(left, right))
    return product.named(f"tensor_weight_gradients_{tile_rows}x{tile_columns}_{precision}")


def weight_gradients(precision: str, fan_out: int, fan_in: int) -> Product:
    """See fma_products.weight_gradients."""
    return weight_gradients_of_tile(precision, side_for(fan_out), side_for(fan_in))
