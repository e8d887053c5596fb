"""Layers of a network in float32 for 32 samples of a warp, whose numbers stay in registers.

Samples are the rows of tensor cores' products, of which a lane 4 g + t has four neighbours,
4 g to 4 g + 3, of the features 2 t and 2 t + 1 of each 8: number 4 f + s is of sample s and feature
8 (f / 2) + 2 t + f mod 2. Results lie where the next layer wants its operands, if each 8 depths are
taken in the order 0, 2, 4, 6, 1, 3, 5, 7, in which the weights lie. These are in shared memory as
parts (see float_block.py), which are split once: 8 x 8 of them are 16 bytes of each lane.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.chain.float_block import NO_SUMS, split
from numbanet.cuda.chain.float_rows import add_bias, lane_of, row, row_number
from numbanet.cuda.chain.infinite_sums import CHAINS, add_nothing, total_of
from numbanet.cuda.chain.tensor_block import set_zero
from numbanet.cuda.launch.threads import thread_index, threads_per_block
from numbanet.device import (
    ZERO,
    device,
    exact,
    float_bits,
    four_from,
    local_array,
    nothing,
    opaque,
    set_four,
    thread_index_for,
    uint32_view,
    unrolled,
)
from numbanet.encodings.finite_inputs import is_nan
from numbanet.storage.views import float_vector
from numbanet.tiles.instructions import (
    load_words,
    load_words_from,
    multiply_add_tf32,
    shared_memory,
    store_words,
    warp_barrier,
)

UNIT_BYTES = 512  # of the parts of 8 x 8 weights
LANE_BYTES = 16
NO_WORD, ONE, THREE, FIVE, THIRTY_ONE = (np.uint32(n) for n in (0, 1, 3, 5, 31))
TWO, EIGHT = np.uint32(2), np.uint32(8)


@dataclass(frozen=True)
class Layer:
    """Product of a layer's weights: of its inputs, or transposed, of its outputs' gradients.

    The weight between result r and depth d is number r result_pitch + d depth_pitch.
    """

    n_results: int
    depth: int
    result_pitch: int
    depth_pitch: int

    @property
    def n_tiles(self) -> int:
        """Results in eights."""
        return -(-self.n_results // 8)

    @property
    def n_steps(self) -> int:
        """Depths in eights."""
        return -(-self.depth // 8)

    @property
    def n_units(self) -> int:
        return self.n_tiles * self.n_steps

    @property
    def n_bytes(self) -> int:
        """Bytes of shared memory of the weights."""
        return UNIT_BYTES * self.n_units


@cache
def split_weights(layer: Layer):
    """Device function (weights, target): write the parts of all weights to shared memory."""
    n_results, depth, n_tiles = (
        np.uint32(n) for n in (layer.n_results, layer.depth, layer.n_tiles)
    )
    result_pitch, depth_pitch = np.uint32(layer.result_pitch), np.uint32(layer.depth_pitch)
    n_lanes = np.uint32(32 * layer.n_units)

    @device
    def fetch(k, weights, r, d, words):
        d = np.uint32(d + np.uint32(k))
        words[k] = NO_WORD
        if (r < n_results) & (d < depth):
            i = np.uint32(r * result_pitch + d * depth_pitch)
            words[k] = float_bits(float_vector(weights, i + ONE)[i])

    @device
    def split_weights(weights, target):
        words = uint32_view(local_array(2))
        big, small = uint32_view(local_array(2)), uint32_view(local_array(2))
        i = thread_index()
        while i < n_lanes:
            lane, unit = i & THIRTY_ONE, i >> FIVE
            r = np.uint32(unit % n_tiles * EIGHT + (lane >> TWO))
            d = np.uint32(unit // n_tiles * EIGHT + TWO * (lane & THREE))
            unrolled(2, fetch, weights, r, d, words)
            unrolled(2, split, words, big, small)
            parts = big[0], big[1], small[0], small[1]
            store_words(np.uint32(target + np.uint32(LANE_BYTES) * i), parts)
            i = np.uint32(i + threads_per_block())

    return split_weights


@device
def take_word(q, k, x, words):  # of 8: of tiles of 16 rows, as multiply_add_tf32 wants them
    tile, second_row, second_depth = q // 4, q % 2, q // 2 % 2
    words[q] = float_bits(x[4 * (2 * k + second_depth) + 2 * tile + second_row])


@device
def multiply_unit(tile, j, weights, parts, sums):
    """Add the product of 16 samples and a unit of weights to the sums of 8 results."""
    (big_weights, small_weights), (big, small) = weights, parts
    big_rows, small_rows = four_from(big, 4 * tile), four_from(small, 4 * tile)
    chunk = multiply_add_tf32(small_rows, big_weights[0], big_weights[1], NO_SUMS)
    chunk = multiply_add_tf32(big_rows, small_weights[0], small_weights[1], chunk)
    chunk = multiply_add_tf32(big_rows, big_weights[0], big_weights[1], chunk)
    first = 8 * j + 2 * tile
    for k in range(4):
        sums[first + 4 * (k % 2) + k // 2] += chunk[k]


@cache
def product(layer: Layer):
    """Device function (address, x, sums): the product, of the lane's weights at the address."""
    n_tiles, n_steps, n_sums = layer.n_tiles, layer.n_steps, 8 * layer.n_tiles

    @device
    def multiply_tile(j, k, address, parts, sums):
        a, b, c, d = load_words(address + np.uint32(UNIT_BYTES * (k * n_tiles + j)))
        unrolled(2, multiply_unit, j, ((a, b), (c, d)), parts, sums)

    @device
    def step(k, address, x, sums):
        words = uint32_view(local_array(8))
        big, small = uint32_view(local_array(8)), uint32_view(local_array(8))
        unrolled(8, take_word, k, x, words)
        unrolled(8, split, words, big, small)
        unrolled(n_tiles, multiply_tile, k, address, (big, small), sums)

    @device
    def product(address, x, sums):
        unrolled(n_sums, set_zero, sums)
        unrolled(n_steps, step, address, x, sums)

    return product


@exact
def add_product(q, of_results, of_samples, sums):
    sums[q] = of_results[q // 4] * of_samples[q % 4] + sums[q]


@cache
def renew_infinite(layer: Layer):
    """Device function (weights, source, lane, sums): compute sums anew if one is not finite.

    See infinite_sums.py. `source` is the address of the operand, in global memory.
    """
    n_results, depth = np.uint32(layer.n_results), np.uint32(layer.depth)
    result_pitch, depth_pitch = np.uint32(layer.result_pitch), np.uint32(layer.depth_pitch)
    n_features, n_sums = 2 * layer.n_tiles, 8 * layer.n_tiles

    @device
    def fetch(f, weights, d, t, to):
        r = row_number(f, t)
        to[f] = ZERO
        if r < n_results:
            i = np.uint32(r * result_pitch + d * depth_pitch)
            to[f] = float_vector(weights, i + ONE)[i]

    @device
    def multiply(weights, source, lane, sums):
        _, t, row_bytes, _ = lane
        of_results, of_samples = local_array(n_features), local_array(4)
        unrolled(n_sums, set_zero, sums)
        source = np.uint64(source - np.uint64(TWO * t) * row_bytes)
        d = NO_WORD
        while d < depth:
            set_four(uint32_view(of_samples), 0, load_words_from(source))
            unrolled(n_features, fetch, weights, d, t, of_results)
            unrolled(n_sums, add_product, of_results, of_samples, sums)
            d = np.uint32(d + ONE)
            source = np.uint64(source + row_bytes)

    @device
    def renew_infinite(weights, source, lane, sums):
        totals = local_array(CHAINS)
        unrolled(CHAINS, set_zero, totals)
        unrolled(n_sums, add_nothing, sums, totals)
        if is_nan(total_of(totals)) & lane[3]:
            multiply(weights, source, lane, sums)

    return renew_infinite


@cache
def through(layer: Layer, finish: Callable, biased: bool = False):
    """Device function (weights, parts, work, rows, x): x through a layer and its activation.

    weights: addresses of the matrix and the bias; parts: where those of the matrix begin in shared
    memory; rows: numbers of the first row of the operand, which lies in global memory too, of the
    result, and of the activation's argument.
    """
    multiply, renew, n_sums = product(layer), renew_infinite(layer), 8 * layer.n_tiles
    add = add_bias(layer.n_results) if biased else nothing

    @device
    def through(weights, parts, work, rows, x):
        (matrix, bias), (source, target, kept) = weights, rows
        sums, number = local_array(n_sums), thread_index_for(opaque(work[1])) & THIRTY_ONE
        multiply(np.uint32(shared_memory() + parts + np.uint32(LANE_BYTES) * number), x, sums)
        lane = lane_of(work)
        renew(matrix, row(lane, source), lane, sums)
        add(bias, lane, sums)
        finish(sums, lane, row(lane, target), row(lane, kept), x)
        warp_barrier()  # other lanes may read what is written, to renew

    return through
