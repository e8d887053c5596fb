"""Matrix product of one block on tensor cores: a tile of the result.

Operands pass through shared memory in stages of the depth, of which two are there or on their way.
Each of the block's warps, two side by side, keeps 32 rows of the result in registers: of 16 rows m
and 8 columns q, sums 4 (m n + q) to 4 (m n + q) + 3, where n is how many 8 columns a warp has; see
numbanet/tiles/instructions.py for whose they are. How a warp multiplies a stage is said here for
halves, and in float_block.py for float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.chain.tensor_tiles import HALF, TileLayout, place_in_tile, tile_loader
from numbanet.cuda.launch.threads import barrier, thread_index
from numbanet.device import ZERO, device, four_from, local_array, set_four, uint32_view, unrolled
from numbanet.tiles.instructions import (
    MULTIPLY_ADD,
    close_group,
    ldmatrix,
    ldmatrix_transposed,
    shared_memory,
    wait_for_older_groups,
)

WARP_ROWS, WARPS_ACROSS = 32, 2
N_STAGES = 2
NOTHING, TWO, THREE, FOUR = np.uint32(0), 2, 3, 4
FIVE, SEVEN, EIGHT, THIRTY_ONE = 5, 7, 8, 31


def n_threads_of(n_rows: int) -> int:
    """Threads of a block whose tile has n_rows rows."""
    return 32 * WARPS_ACROSS * n_rows // WARP_ROWS


@dataclass(frozen=True)
class Operand:
    """Tile of one operand: `size` rows of the left or columns of the right one, by the depth.

    In global memory, and so in shared memory, it is contiguous along the depth, or else along the
    other side.
    """

    size: int
    depth: int
    along_depth: bool
    is_left: bool
    any_address: bool = False
    item_bytes: int = HALF

    @property
    def layout(self) -> TileLayout:
        if self.along_depth:
            return TileLayout(self.size, self.depth, self.item_bytes)
        return TileLayout(self.depth, self.size, self.item_bytes)


@cache
def operand_loader(operand: Operand, n_threads: int):
    """Device function (tile, operand, depth, end): start the copy of the stage at a depth.

    operand is a tuple of an address, the pitch, and the first and the end of the rows or columns.
    """
    load = tile_loader(operand.layout, n_threads, operand.any_address)
    along_depth = operand.along_depth

    @device
    def operand_loader(tile, operand, depth, end):
        source, pitch, first_side, side_end = operand
        side, depths = (first_side, side_end), (depth, end)
        if along_depth:
            load(tile, source, pitch, side, depths)
        else:
            load(tile, source, pitch, depths, side)

    return operand_loader


@cache
def fragments(operand: Operand):
    """Device functions (lane_address, load) for fragments of an operand.

    lane_address(side): where a warp whose part begins at `side` has a lane's rows of matrices.
    load(address, k, s): four words, of 16 depths from 16 k and 16 rows or columns from 16 s. They
    are a fragment of the left operand, or two of the right one.
    """
    address, along_depth = place_in_tile(operand.layout), operand.along_depth
    of_halves = operand.item_bytes == HALF
    sixteen_rows = operand.layout.offset(16)
    depth_step, side_step = (32, sixteen_rows) if along_depth else (sixteen_rows, 32)
    # The second of the four matrices lies beyond the first in rows of the left operand, and in
    # depth of the right one; which of them is contiguous depends on the layout too.
    second_is_outer = along_depth == operand.is_left
    load_four = ldmatrix if along_depth else ldmatrix_transposed

    @device
    def lane_address(side):
        lane = thread_index() & THIRTY_ONE
        second, third = lane & EIGHT, lane >> FOUR << THREE
        outer = (lane & SEVEN) + (second if second_is_outer else third)
        inner = third if second_is_outer else second
        if not of_halves:  # 16 bytes are four numbers
            inner = inner // TWO
        if along_depth:
            return address(outer + side, inner)
        return address(outer, inner + side)

    @device
    def load(address, k, s):
        return load_four(address + (k * depth_step + s * side_step))

    return lane_address, load


@cache
def stage_product(precision: str, left: Operand, right: Operand):
    """Device function (left_address, right_address, sums): add a stage's product, for one warp."""
    multiply_add = MULTIPLY_ADD[precision]
    _, load_left = fragments(left)
    _, load_right = fragments(right)
    n_columns = right.size // WARPS_ACROSS // 8  # of the result, in eights
    n_pairs, n_steps, n_rows = n_columns // 2, left.depth // 16, WARP_ROWS // 16
    n_multiplications, n_words = 2 * n_rows, 4 * n_rows

    @device
    def load_rows(m, k, address, a):
        set_four(a, 4 * m, load_left(address, k, m))

    @device
    def multiply(j, pair, b, a, sums):
        m, half = j // 2, j % 2
        i = 4 * (m * n_columns + 2 * pair + half)
        rows = four_from(a, 4 * m)
        before = four_from(sums, i)
        after = multiply_add(rows, b[2 * half], b[2 * half + 1], before)
        set_four(sums, i, after)

    @device
    def multiply_pair(pair, k, address, a, sums):
        b = load_right(address, k, pair)
        unrolled(n_multiplications, multiply, pair, b, a, sums)

    @device
    def step(k, left_address, right_address, sums):
        a = uint32_view(local_array(n_words))
        unrolled(n_rows, load_rows, k, left_address, a)
        unrolled(n_pairs, multiply_pair, k, right_address, a, sums)

    @device
    def stage_product(left_address, right_address, sums):
        unrolled(n_steps, step, left_address, right_address, sums)

    return stage_product


@cache
def warp_product(precision: str, left: Operand, right: Operand) -> tuple[Callable, ...]:
    """Device functions of halves for tensor_product: lane addresses of both operands, the product.

    These are lane_address of fragments, and stage_product.
    """
    return fragments(left)[0], fragments(right)[0], stage_product(precision, left, right)


@device
def set_zero(k, sums):
    sums[k] = ZERO


@cache
def warp_position(n_columns: int):
    """Device function (): the first row and column of a warp in its block's tile."""
    warp_columns = n_columns // WARPS_ACROSS

    @device
    def warp_position():
        warp = thread_index() >> FIVE
        row, column = warp // WARPS_ACROSS, warp % WARPS_ACROSS
        return row * WARP_ROWS, column * warp_columns

    return warp_position


@device
def lane_position():  # the row and column of a lane's first sum in a tile of 16 x 8
    t = thread_index()
    return (t & THIRTY_ONE) >> TWO, TWO * (t & THREE)


@cache
def pair_of_sums(n_columns: int):
    """Device function (j): the first sum of a lane's j-th pair, and the pair's row and column.

    Those are in eights, from lane_position; there are n_columns / 4 pairs in a tile of n_columns.
    """
    n_eights = n_columns // WARPS_ACROSS // 8

    @device
    def pair_of_sums(j):
        row, column = j // n_eights, j % n_eights
        return 4 * (row // 2 * n_eights + column) + 2 * (row % 2), row, column

    return pair_of_sums


def stage_bytes(left: Operand, right: Operand) -> int:
    """Bytes of shared memory that a block's product takes, from the start."""
    return N_STAGES * (left.layout.n_bytes + right.layout.n_bytes)


@cache
def tensor_product(of_warp: tuple[Callable, ...], left: Operand, right: Operand):
    """Device function (a, b, depths, sums): the product of a's rows and b's columns.

    a and b are tuples of an address, the pitch, and the first and the end of the rows or columns;
    depths are the first one and the end, which lies beyond it. Copies that were started before have
    arrived, and nobody needs the stages any more, when it returns. of_warp is as of warp_product.
    """
    n_threads = n_threads_of(left.size)
    load_left, load_right = operand_loader(left, n_threads), operand_loader(right, n_threads)
    (left_lane, right_lane, multiply), position = of_warp, warp_position(right.size)
    n_sums = left.size * right.size // n_threads
    right_offset = left.layout.n_bytes
    second_stage = left.layout.n_bytes + right.layout.n_bytes
    step = left.depth

    @device
    def tensor_product(a, b, depths, sums):
        depth, end = depths
        stages = shared_memory()
        unrolled(n_sums, set_zero, sums)
        load_left(stages, a, depth, end)
        load_right(stages + right_offset, b, depth, end)
        close_group()
        if depth + step < end:
            stage = stages + second_stage
            load_left(stage, a, depth + step, end)
            load_right(stage + right_offset, b, depth + step, end)
        close_group()
        row, column = position()
        left_address, right_address = left_lane(row), right_lane(column) + right_offset
        offset = NOTHING
        while depth < end:
            wait_for_older_groups()
            barrier()
            stage = stages + offset
            multiply(stage + left_address, stage + right_address, sums)
            barrier()
            depth += step
            if depth + step < end:
                load_left(stage, a, depth + step, end)
                load_right(stage + right_offset, b, depth + step, end)
            close_group()
            offset = second_stage - offset

    return tensor_product
