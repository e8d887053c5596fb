"""Product of a stage of float32 for one warp, by tensor cores: three products of rounded parts.

A number is a big part, rounded to the 11 bits that tensor cores read, and a small one, the rest. Of
the four products of parts, small times small is left out: it is at most 2^-22 of the whole. Tensor
cores cut off their sums instead of rounding them, so they add up 8 depths at a time, small products
first, and float32 additions do the rest. See docs/design/float32_products.md.

An operand that is contiguous along the other side than the depth is read 16 bytes at a time: a lane
4 g + t has four neighbours of that side at depth t, which go to the same place of four tiles. So
those have other rows or columns than in the order of the instruction; `Places` has them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.chain.tensor_block import (
    WARP_ROWS,
    WARPS_ACROSS,
    Operand,
    fragments,
)
from numbanet.cuda.chain.tensor_tiles import place_in_tile
from numbanet.cuda.launch.threads import thread_index
from numbanet.device import (
    ZERO,
    device,
    exact,
    float_bits,
    float_from_bits,
    four_from,
    local_array,
    set_four,
    uint32_view,
    unrolled,
)
from numbanet.tiles.instructions import load_words, multiply_add_tf32

STEP = 8  # depths of an instruction
HALF_UNIT, BIG_BITS = np.uint32(1 << 12), np.uint32(0xFFFFE000)
NO_SUMS = ZERO, ZERO, ZERO, ZERO
ONE, TWO, THREE, FOUR, THIRTY_ONE = 1, 2, 3, 4, 31


@exact
def split(k, words, big, small):
    """Split number k, of bits, into the bits of two that tensor cores read, of which one is less.

    What is not finite, or not when rounded, makes the smaller one NaN or infinite. Tensor cores do
    not read the lower 13 bits, of which the smaller one has at most one that is not zero.
    """
    bits = words[k]
    rounded = (bits + HALF_UNIT) & BIG_BITS
    big[k] = rounded
    small[k] = float_bits(float_from_bits(bits) - float_from_bits(rounded))


@device
def spread(g):  # so that eight lanes' 16 bytes of two g and four depths lie in all banks once
    return (g >> ONE) | ((g & ONE) << TWO)


@dataclass(frozen=True)
class Places:
    """Rows of the left or columns of the right operand that a lane's sums are of, in a warp's part.

    The k-th one is `step(k)` from the lane's first, whose number is first(lane).
    """

    operand: Operand

    @property
    def n(self) -> int:
        if self.operand.is_left:
            return WARP_ROWS // 8
        return self.operand.size // WARPS_ACROSS // 4

    def first(self):
        """Device function (): the lane's first row or column."""
        is_left, along_depth = self.operand.is_left, self.operand.along_depth

        @device
        def first():
            lane = thread_index() & THIRTY_ONE
            g, t = lane >> TWO, lane & THREE
            if is_left:
                return g if along_depth else FOUR * spread(g)
            return TWO * t if along_depth else FOUR * t

        return first

    def step(self):
        """Device function (k): the distance of the k-th row or column from the first."""
        is_left, along_depth = self.operand.is_left, self.operand.along_depth

        @device
        def step(k):
            if is_left:
                return 8 * k if along_depth else k
            tile, second = k // 2, k % 2
            if along_depth:
                return 8 * tile + second
            return 32 * (tile // 4) + 16 * second + tile % 4

        return step


@cache
def numbers(operand: Operand):
    """Device functions (lane_address, load) of an operand's numbers, as of tensor_block.fragments.

    load(words, first, address, k, s) gets those of 8 depths from 8 k, for the s-th part of a warp's
    rows or columns: words first to first + 7, or first + 3 where the operand lies along the depth.
    """
    if operand.along_depth:
        lane_address, load_four = fragments(operand)

        @device
        def load(words, first, address, k, s):
            set_four(words, first, load_four(address, k, s))

        return lane_address, load

    place, is_left = place_in_tile(operand.layout), operand.is_left
    four_rows = operand.layout.offset(4)
    step_bytes, part_bytes = operand.layout.offset(STEP), 32 * operand.item_bytes

    @device
    def lane_address(side):
        lane = thread_index() & THIRTY_ONE
        return place(lane & THREE, side + FOUR * spread(lane >> TWO))

    @device
    def load(words, first, address, k, s):
        there = address + (k * step_bytes + s * part_bytes)
        low, high = load_words(there), load_words(there + four_rows)
        if is_left:  # tiles of 16 rows: g and g + 8 at depth t, then the same at t + 4
            set_four(words, first, (low[0], low[1], high[0], high[1]))
            set_four(words, first + FOUR, (low[2], low[3], high[2], high[3]))
        else:  # tiles of 8 columns: depth t, then t + 4
            set_four(words, first, (low[0], high[0], low[1], high[1]))
            set_four(words, first + FOUR, (low[2], high[2], low[3], high[3]))

    return lane_address, load


@cache
def multiply_tile(n_tiles: int):
    """Device function (m, tile, columns, column, rows, sums): add a product to 16 x 8 sums.

    Rows and columns are tuples of big and small parts: of the warp's rows, and of the columns of
    some tiles, of which the words of this one, of n_tiles, are `column` and the next.
    """

    @device
    def multiply_tile(m, tile, columns, column, rows, sums):
        (big_rows, small_rows), (big_columns, small_columns) = rows, columns
        big, small = four_from(big_rows, 4 * m), four_from(small_rows, 4 * m)
        low, high = big_columns[column], big_columns[column + 1]
        chunk = multiply_add_tf32(small, low, high, NO_SUMS)
        rest = small_columns[column], small_columns[column + 1]
        chunk = multiply_add_tf32(big, rest[0], rest[1], chunk)
        chunk = multiply_add_tf32(big, low, high, chunk)
        first = 4 * (m * n_tiles + tile)
        for k in range(4):
            sums[first + k] += chunk[k]

    return multiply_tile


@cache
def stage_product(left: Operand, right: Operand):
    """Device function (left_address, right_address, sums): add a stage's product, for one warp."""
    _, load_left = numbers(left)
    _, load_right = numbers(right)
    n_steps, n_tiles = left.depth // STEP, right.size // WARPS_ACROSS // 8
    per_part = 2 if right.along_depth else 4  # tiles that are loaded at once
    n_parts, n_right, n_left = n_tiles // per_part, 2 * per_part, WARP_ROWS // 4
    left_loads = 2 if left.along_depth else 1
    words_of_load, n_products = n_left // left_loads, per_part * WARP_ROWS // 16
    multiply = multiply_tile(n_tiles)

    @device
    def load_rows(j, k, address, words):
        load_left(words, words_of_load * j, address, k, j)

    @device
    def multiply_one(j, part, columns, rows, sums):
        m, column = j % 2, j // 2
        multiply(m, per_part * part + column, columns, 2 * column, rows, sums)

    @device
    def multiply_part(part, k, address, rows, sums):
        words = uint32_view(local_array(n_right))
        big, small = uint32_view(local_array(n_right)), uint32_view(local_array(n_right))
        load_right(words, 0, address, k, part)
        unrolled(n_right, split, words, big, small)
        unrolled(n_products, multiply_one, part, (big, small), rows, sums)

    @device
    def step(k, left_address, right_address, sums):
        words = uint32_view(local_array(n_left))
        big, small = uint32_view(local_array(n_left)), uint32_view(local_array(n_left))
        unrolled(left_loads, load_rows, k, left_address, words)
        unrolled(n_left, split, words, big, small)
        unrolled(n_parts, multiply_part, k, right_address, (big, small), sums)

    @device
    def stage_product(left_address, right_address, sums):
        unrolled(n_steps, step, left_address, right_address, sums)

    return stage_product
