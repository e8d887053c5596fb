"""Products of a layer of float32 on tensor cores: of two parts of each number; see float_block.py.

A lane has four neighbouring samples of a row, so that results leave its registers in 16 bytes, and
what the chain rule wants comes likewise.
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
from numbanet.cuda.chain.float_block import Places, numbers, stage_product
from numbanet.cuda.chain.infinite_sums import renew_infinite
from numbanet.cuda.chain.products import Product, block_position
from numbanet.cuda.chain.tensor import gradients_kernel, is_linear
from numbanet.cuda.chain.tensor_block import (
    Operand,
    n_threads_of,
    stage_bytes,
    tensor_product,
    warp_position,
)
from numbanet.cuda.chain.tensor_tiles import FLOAT
from numbanet.device import (
    belongs_to,
    device,
    float_bits,
    float_from_bits,
    local_array,
    nothing,
    opaque,
    unrolled,
)
from numbanet.storage.views import float_vector
from numbanet.tiles.instructions import load_words_from, store_words_to

SIDES = 32, 64  # of tiles of the result; samples are taken by N_SAMPLES
N_SAMPLES = 64  # by 128, the assembler spills some kernels
DEPTH, SAMPLE_DEPTH = 16, 32  # of a stage, where the depth is a width, and where it is the samples
RESIDENT_THREADS = 384  # of a multiprocessor
MAX_REGISTERS = 152  # of 168 that a thread could have; more are not needed
NOTHING, FOUR, FLOAT_BYTES = np.uint32(0), np.uint32(4), np.uint64(FLOAT)


def side_for(size: int) -> int:
    """Side of the tiles for a side of the result."""
    return SIDES[size > SIDES[0]]


@cache
def exact_product(left: Operand, right: Operand) -> tuple[Callable, Callable]:
    """Device functions like tensor_product: one of float32, and one that renews infinite sums."""
    of_warp = numbers(left)[0], numbers(right)[0], stage_product(left, right)
    return tensor_product(of_warp, left, right), renew_infinite(left, right)


def product_of(kernel, tile_rows: int, tile_columns: int, left: Operand, right: Operand) -> Product:
    n_threads = n_threads_of(tile_rows)
    sizes = tile_rows, tile_columns, left.depth, n_threads, RESIDENT_THREADS // n_threads
    return Product(kernel, *sizes, stage_bytes(left, right), MAX_REGISTERS)


# Four results of a row


@device
def store_four(address, i, values, n_left):
    if n_left >= FOUR:
        a, b, c, d = values
        words = float_bits(a), float_bits(b), float_bits(c), float_bits(d)
        store_words_to(address + FLOAT_BYTES * np.uint64(i), words)
    else:
        unrolled(3, store_one, address, i, values, n_left)


@device
def store_one(k, address, i, values, n_left):
    if np.uint32(k) < n_left:
        float_vector(address, i + FOUR)[i + k] = values[k]


@cache
def finish_forward(activation: Activation):
    """Device function (y, kept, i, values, n_left): activate four sums and write n_left of them."""
    act, from_input = activation.forward, activation.from_input

    @device
    @belongs_to(f"{activation.name}.forward")
    def finish_forward(y, kept, i, values, n_left):
        if from_input:
            store_four(kept, i, values, n_left)
        a, b, c, d = values
        store_four(y, i, (act(a), act(b), act(c), act(d)), n_left)

    return finish_forward


@cache
def finish_backward(activation: Activation):
    """Device function (dl_dx, kept, i, values, n_left): apply the chain rule to four sums."""
    act_backward, linear = activation.backward, is_linear(activation)

    @device
    @belongs_to(f"{activation.name}.backward")
    def finish_backward(dl_dx, kept, i, values, n_left):
        if linear:
            store_four(dl_dx, i, values, n_left)
        else:  # rows end at a multiple of four numbers
            e, f, g, h = load_words_from(kept + FLOAT_BYTES * np.uint64(i))
            a, b, c, d = values
            results = (
                act_backward(a, float_from_bits(e)),
                act_backward(b, float_from_bits(f)),
                act_backward(c, float_from_bits(g)),
                act_backward(d, float_from_bits(h)),
            )
            store_four(dl_dx, i, results, n_left)

    return finish_backward


# Products


def sample_product(finish: Callable, tile_rows: int, transposed: bool, biased: bool = False):
    """fma_products.sample_product on tensor cores, for one size of tiles."""
    left = Operand(tile_rows, DEPTH, not transposed, True, any_address=True, item_bytes=FLOAT)
    right = Operand(N_SAMPLES, DEPTH, along_depth=False, is_left=False, item_bytes=FLOAT)
    address, add = address_alone, nothing
    if biased:
        address, add = address_of_both, add_to_tensor_sums("float32", N_SAMPLES)
    multiply, renew = exact_product(left, right)
    position = block_position(tile_rows, N_SAMPLES)
    rows, columns, warp_place = Places(left), Places(right), warp_position(N_SAMPLES)
    first_row, row_step = rows.first(), rows.step()
    first_column, fours = columns.first(), columns.n // 4
    n_fours = rows.n * fours
    n_tiles, n_sums = columns.n // 2, rows.n * columns.n

    @device
    def finish_four(k, sums, place, ends, y, kept):
        (row, column), (n_rows, n, pitch) = place, ends
        r, c = k // fours, k % fours
        o, i = row + row_step(r), column + 16 * c
        if (o < n_rows) & (i < n):
            j = 4 * (r // 2 * n_tiles + 4 * (c // 2)) + 2 * (r % 2) + c % 2
            values = sums[j], sums[j + 4], sums[j + 8], sums[j + 12]
            finish(y, kept, np.uint32(o * pitch + i), values, np.uint32(n - i))

    def sample_product(weights, x, y, kept, n_rows, depth, n, pitch):
        row, column = position(n_rows)
        sums, depths = local_array(n_sums), (NOTHING, depth)
        a = address(weights), n_rows if transposed else depth, row, n_rows
        multiply(a, (x, pitch, column, n), depths, sums)
        row, column = position(opaque(n_rows))  # computed again, not kept in registers
        a = address(weights), n_rows if transposed else depth, row, n_rows
        renew(a, (x, pitch, column, n), depths, sums)
        add(sums, row, n_rows, weights)
        warp_row, warp_column = warp_place()
        place = row + warp_row + first_row(), column + warp_column + first_column()
        unrolled(n_fours, finish_four, sums, place, (n_rows, n, pitch), y, kept)

    kernel = with_bias(sample_product) if biased else sample_product
    return product_of(kernel, tile_rows, N_SAMPLES, left, right)


@cache
def forward_of_tile(activation: Activation, tile_rows: int, biased: bool) -> Product:
    product = sample_product(finish_forward(activation), tile_rows, False, biased)
    what = "biased_" if biased else ""
    return product.named(f"tensor_forward_{what}{tile_rows}_{activation.name}_float32")


def forward(precision: str, activation: Activation, fan_out: int, biased: bool = False) -> Product:
    """See fma_products.forward."""
    return forward_of_tile(activation, side_for(fan_out), biased)


@cache
def backward_of_tile(activation: Activation, tile_rows: int) -> Product:
    product = sample_product(finish_backward(activation), tile_rows, True)
    return product.named(f"tensor_backward_{tile_rows}_{activation.name}_float32")


def backward(precision: str, activation: Activation, fan_in: int) -> Product:
    """See fma_products.backward."""
    return backward_of_tile(activation, side_for(fan_in))


@cache
def weight_gradients_of_tile(tile_rows: int, tile_columns: int) -> Product:
    along_depth = {"along_depth": True, "item_bytes": FLOAT}
    left = Operand(tile_rows, SAMPLE_DEPTH, is_left=True, **along_depth)
    right = Operand(tile_columns, SAMPLE_DEPTH, is_left=False, **along_depth)
    multiply, renew = exact_product(left, right)

    @device
    def multiply_all(a, b, depths, sums):
        multiply(a, b, depths, sums)
        renew(a, b, depths, sums)

    kernel = gradients_kernel(multiply_all, tile_rows, tile_columns)
    product = product_of(kernel, tile_rows, tile_columns, left, right)
    return product.named(f"tensor_weight_gradients_{tile_rows}x{tile_columns}_float32")


def weight_gradients(precision: str, fan_out: int, fan_in: int) -> Product:
    """See fma_products.weight_gradients."""
    return weight_gradients_of_tile(side_for(fan_out), side_for(fan_in))
