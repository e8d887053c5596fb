"""Biases of layers: added to the sums of products; their gradients; added to derivatives."""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.cuda.chain.fma_block import ROWS, thread_position
from numbanet.cuda.chain.tensor_block import (
    WARP_ROWS,
    lane_position,
    pair_of_sums,
    warp_position,
)
from numbanet.cuda.launch.threads import (
    barrier,
    block_index,
    shared_array,
    thread_index,
    thread_number,
    threads_per_block,
    warp_sum,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO, device, local_array, unrolled
from numbanet.storage.access import load
from numbanet.storage.views import ITEM_SIZES, VECTORS, float_vector

ROW_BLOCK = 512  # threads, which add up a row
N_WARPS, LOG2_WARP, LAST_LANE = ROW_BLOCK // 32, 5, 31


@cache
def add_to_fma_sums(precision: str, n_columns: int):
    """Device function (sums, first_row, n_rows, weights): add one number to each row of a tile.

    The sums are those of a thread as fma_block.py has them; weights is a tuple of an address and
    first_bias, so many numbers behind which the bias begins.
    """
    vector, item_size = VECTORS[precision], np.uint64(ITEM_SIZES[precision])
    n_rows_each, n_sums = ROWS // 16, n_columns // 16

    @device
    def add_to_row(r, sums, first_row, n_rows, bias):
        o = first_row + (r // 2 * 32 + r % 2)
        if o < n_rows:
            value = load(bias, o)
            for c in range(n_sums):
                sums[r * n_sums + c] += value

    @device
    def add_to_fma_sums(sums, first_row, n_rows, weights):
        (address, first_bias), (row, _) = weights, thread_position()
        bias = vector(np.uint64(address + first_bias * item_size), n_rows)
        unrolled(n_rows_each, add_to_row, sums, first_row + row, n_rows, bias)

    return add_to_fma_sums


@cache
def add_to_tensor_sums(precision: str, n_columns: int):
    """add_to_fma_sums for the sums of a lane as tensor_block.py has them."""
    vector, item_size = VECTORS[precision], np.uint64(ITEM_SIZES[precision])
    position, pair_of = warp_position(n_columns), pair_of_sums(n_columns)
    n_rows_each, n_pairs = WARP_ROWS // 8, n_columns // 4

    @device
    def fetch(r, values, first_row, n_rows, bias):
        o = first_row + 8 * r
        values[r] = load(bias, o) if o < n_rows else ZERO

    @device
    def add_to_pair(j, values, sums):
        i, row, _ = pair_of(j)
        sums[i] += values[row]
        sums[i + 1] += values[row]

    @device
    def add_to_tensor_sums(sums, first_row, n_rows, weights):
        (address, first_bias), (warp_row, _) = weights, position()
        row, _ = lane_position()
        bias = vector(np.uint64(address + first_bias * item_size), n_rows)
        values = local_array(n_rows_each)
        unrolled(n_rows_each, fetch, values, first_row + warp_row + row, n_rows, bias)
        unrolled(n_pairs, add_to_pair, values, sums)

    return add_to_tensor_sums


@device
def address_alone(weights):
    return weights


@device
def address_of_both(weights):
    return weights[0]


def with_bias(product: Callable) -> Callable:
    """Kernel of a product whose weights are a tuple of their address and first_bias."""
    product = device(product)

    def biased_product(weights, x, y, kept, n_rows, depth, n, pitch, first_bias):
        product((weights, first_bias), x, y, kept, n_rows, depth, n, pitch)

    return biased_product


@cache
def row_sums_kernel(precision: str):
    """(dl_dy, n, pitch, factor, gradients): add factor times the sum of each row, a block each.

    The order of the sum is always the same.
    """
    vector = VECTORS[precision]

    def row_sums(pdl_dy: Address, n: UInt, pitch: UInt, factor: Float, pgradients: Address):
        row, i, total = block_index(), thread_index(), ZERO
        dl_dy, start = vector(pdl_dy, n), row * pitch
        while i < n:
            total += load(dl_dy, start + i)
            i += threads_per_block()
        sums, warp, lane = shared_array(N_WARPS), thread_index() >> LOG2_WARP, thread_index()
        total = warp_sum(total)
        if (lane & LAST_LANE) == 0:
            sums[warp] = total
        barrier()
        if warp == 0:
            total = warp_sum(sums[lane] if lane < N_WARPS else ZERO)
            if lane == 0:
                float_vector(pgradients, n)[row] += factor * total

    row_sums.__qualname__ = f"bias_gradients_{precision}"
    return row_sums


def add_bias_kernel(py: Address, pbias: Address, n_rows: UInt, n: UInt, pitch: UInt):
    """(y, bias, n_rows, n, pitch): add each row's number to n of its columns; a thread for each."""
    k = thread_number()
    if k < n_rows * n:
        float_vector(py, n)[k // n * pitch + k % n] += float_vector(pbias, n)[k // n]
