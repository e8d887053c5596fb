"""One block's part of a matrix product on tensor cores: a tile of the result, of halves.

Operands pass through shared memory, DEPTH steps of the depth at a time and one such stage ahead,
in 16-byte copies that no thread waits for. Each of the block's warps, two side by side, keeps 32
rows of the result in registers: of 16 rows m and 8 columns q, sums 4 (m n + q) to 4 (m n + q) + 3,
where n is how many 8 columns a warp has; see numbanet/tiles/instructions.py for whose they are.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.threads import barrier, thread_index
from numbanet.device import ZERO, device, local_array, uint32_view, unrolled
from numbanet.storage.views import bfloat_vector
from numbanet.tiles.instructions import (
    MULTIPLY_ADD,
    close_group,
    copy_bytes,
    ldmatrix,
    ldmatrix_transposed,
    shared_memory,
    store_words,
    wait_for_older_groups,
)

CHUNK = 8  # halves of one copy
WARP_ROWS, WARPS_ACROSS = 32, 2
LINE_BYTES, PAD_BYTES = 128, 16
N_STAGES = 2
ONE, TWO, THREE, FOUR = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)
SEVEN, EIGHT, FIFTEEN, SIXTEEN = np.uint32(7), np.uint32(8), np.uint32(15), np.uint32(16)
THIRTY_ONE, NOTHING = np.uint32(31), np.uint32(0)
HALF_BYTES, ALIGNMENT_MASK = np.uint64(2), np.uint64(15)


def n_threads_of(n_rows: int) -> int:
    """Threads of a block whose tile has n_rows rows."""
    return 32 * WARPS_ACROSS * n_rows // WARP_ROWS


@dataclass(frozen=True)
class TileLayout:
    """Halves [n_outer, n_inner] in shared memory.

    A line is a row or, of short rows, 128 bytes of them; 16 bytes lie between lines, so that eight
    neighbours in either direction are in different banks, 16 bytes each.
    """

    n_outer: int
    n_inner: int

    @property
    def rows_per_line(self) -> int:
        return max(LINE_BYTES // (2 * self.n_inner), 1)

    def offset(self, n_rows: int) -> int:
        """The distance in bytes of n_rows rows, a multiple of those of a line."""
        return n_rows // self.rows_per_line * (max(LINE_BYTES, 2 * self.n_inner) + PAD_BYTES)

    @property
    def n_bytes(self) -> int:
        return self.offset(self.n_outer)


@cache
def address_in(layout: TileLayout):
    """Device function (outer, inner): the bytes from the start of the tile to an element."""
    per_line, line_bytes = (
        np.uint32(layout.rows_per_line),
        np.uint32(layout.offset(layout.rows_per_line)),
    )
    row_bytes = np.uint32(2 * layout.n_inner)

    @device
    def address_in(outer, inner):
        line, row = np.uint32(outer // per_line), np.uint32(outer % per_line)
        return np.uint32(line * line_bytes + row * row_bytes + TWO * inner)

    return address_in


@device
def load_half(source, i, is_there):  # 16 bits, in a word
    word = NOTHING
    if is_there:
        word = np.uint32(bfloat_vector(source, i + ONE)[i])
    return word


@device
def load_two_halves(source, i, n_left, k):
    low = load_half(source, np.uint32(i + k), n_left > k)
    high = load_half(source, np.uint32(i + k + ONE), n_left > np.uint32(k + ONE))
    return np.uint32(low | np.uint32(high << SIXTEEN))


@cache
def tile_loader(layout: TileLayout, n_threads: int, any_address: bool = False):
    """Device function (tile, source, pitch, outer, inner): start the copy of a tile.

    outer and inner are tuples of the first row or column of the source and the end, from which on
    there are zeros. Addresses of rows are multiples of 16, or else any_address is to be said; then
    a source for which they are not is loaded one by one.
    """
    address = address_in(layout)
    per_thread = layout.n_outer * layout.n_inner // CHUNK // n_threads
    n_lanes, block = np.uint32(layout.n_inner // CHUNK), np.uint32(n_threads)

    @device
    def load_chunk(j, tile, source, pitch, outer_range, inner_range, is_aligned):
        first_outer, outer_end = outer_range
        first_inner, inner_end = inner_range
        chunk = np.uint32(thread_index() + np.uint32(j) * block)
        outer, inner = np.uint32(chunk // n_lanes), np.uint32(EIGHT * np.uint32(chunk % n_lanes))
        target = np.uint32(tile + address(outer, inner))
        outer, inner = np.uint32(outer + first_outer), np.uint32(inner + first_inner)
        n_left = NOTHING
        if (outer < outer_end) & (inner < inner_end):
            n_left = min(np.uint32(inner_end - inner), EIGHT)
        i = np.uint32(outer * pitch + inner)
        if is_aligned:
            copy_bytes(target, source + HALF_BYTES * np.uint64(i), np.uint32(TWO * n_left))
        else:
            first = load_two_halves(source, i, n_left, NOTHING)
            second = load_two_halves(source, i, n_left, TWO)
            third = load_two_halves(source, i, n_left, FOUR)
            fourth = load_two_halves(source, i, n_left, np.uint32(FOUR + TWO))
            store_words(target, (first, second, third, fourth))

    @device
    def tile_loader(tile, source, pitch, outer_range, inner_range):
        is_aligned = True
        if any_address:
            is_aligned = (np.uint32(pitch % EIGHT) == NOTHING) & (
                np.uint64(source & ALIGNMENT_MASK) == np.uint64(0)
            )
        unrolled(per_thread, load_chunk, tile, source, pitch, outer_range, inner_range, is_aligned)

    return tile_loader


@dataclass(frozen=True)
class Operand:
    """A tile of one operand: `size` rows of the left or columns of the right one, and the depth.

    In global memory, and so in shared memory, it is contiguous along the depth, or else along the
    other side.
    """

    size: int
    depth: int
    along_depth: bool
    is_left: bool
    any_address: bool = False

    @property
    def layout(self) -> TileLayout:
        if self.along_depth:
            return TileLayout(self.size, self.depth)
        return TileLayout(self.depth, self.size)


@cache
def operand_loader(operand: Operand, n_threads: int):
    """Device function (tile, operand, depth, end): start the copy of what begins at a depth.

    operand is a tuple of an address, the pitch, and the first and the end of the rows or columns.
    """
    load, along_depth = (
        tile_loader(operand.layout, n_threads, operand.any_address),
        operand.along_depth,
    )

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
    address, along_depth = address_in(operand.layout), operand.along_depth
    sixteen_rows = operand.layout.offset(16)
    depth_step, side_step = (32, sixteen_rows) if along_depth else (sixteen_rows, 32)
    # The second of the four matrices lies beyond the first in rows of the left operand, and in
    # depth of the right one; what lies so in memory depends on the layout too.
    second_is_outer = along_depth == operand.is_left
    load_four = ldmatrix if along_depth else ldmatrix_transposed

    @device
    def lane_address(side):
        lane = np.uint32(thread_index() & THIRTY_ONE)
        second, third = np.uint32(lane & EIGHT), np.uint32(np.uint32(lane >> FOUR) << THREE)
        outer = np.uint32(np.uint32(lane & SEVEN) + (second if second_is_outer else third))
        inner = third if second_is_outer else second
        if along_depth:
            return address(np.uint32(outer + side), inner)
        return address(outer, np.uint32(inner + side))

    @device
    def load(address, k, s):
        return load_four(np.uint32(address + np.uint32(k * depth_step + s * side_step)))

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
        a[4 * m], a[4 * m + 1], a[4 * m + 2], a[4 * m + 3] = load_left(address, k, m)

    @device
    def multiply(j, pair, b, a, sums):
        m, half = j // 2, j % 2
        i = 4 * (m * n_columns + 2 * pair + half)
        rows = a[4 * m], a[4 * m + 1], a[4 * m + 2], a[4 * m + 3]
        before = sums[i], sums[i + 1], sums[i + 2], sums[i + 3]
        after = multiply_add(rows, b[2 * half], b[2 * half + 1], before)
        sums[i], sums[i + 1], sums[i + 2], sums[i + 3] = after

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


@device
def set_zero(k, sums):
    sums[k] = ZERO


@cache
def warp_position(n_columns: int):
    """Device function (): the first row and column of a warp in its block's tile."""
    warp_columns, warps_across = np.uint32(n_columns // WARPS_ACROSS), np.uint32(WARPS_ACROSS)
    warp_rows, five = np.uint32(WARP_ROWS), np.uint32(5)

    @device
    def warp_position():
        warp = np.uint32(thread_index() >> five)
        row, column = np.uint32(warp // warps_across), np.uint32(warp % warps_across)
        return np.uint32(row * warp_rows), np.uint32(column * warp_columns)

    return warp_position


@device
def lane_position():  # the row and column of a lane's first sum in a tile of 16 x 8
    t = thread_index()
    return np.uint32(np.uint32(t & THIRTY_ONE) >> TWO), np.uint32(TWO * np.uint32(t & THREE))


def stage_bytes(left: Operand, right: Operand) -> int:
    """Bytes of shared memory that a block's product takes, from the start."""
    return N_STAGES * (left.layout.n_bytes + right.layout.n_bytes)


@cache
def tensor_product(precision: str, left: Operand, right: Operand):
    """Device function (a, b, depths, sums): the product of a's rows and b's columns.

    a and b are tuples of an address, the pitch, and the first and the end of the rows or columns;
    depths are the first one and the end, which lies beyond it. Copies that were started before have
    arrived, and nobody needs the stages any more, when it returns.
    """
    n_threads = n_threads_of(left.size)
    load_left, load_right = operand_loader(left, n_threads), operand_loader(right, n_threads)
    left_lane, _ = fragments(left)
    right_lane, _ = fragments(right)
    multiply, position = stage_product(precision, left, right), warp_position(right.size)
    n_sums = left.size * right.size // n_threads
    right_offset = np.uint32(left.layout.n_bytes)
    second_stage = np.uint32(left.layout.n_bytes + right.layout.n_bytes)
    step = np.uint32(left.depth)

    @device
    def tensor_product(a, b, depths, sums):
        depth, end = depths
        stages = shared_memory()
        unrolled(n_sums, set_zero, sums)
        load_left(stages, a, depth, end)
        load_right(np.uint32(stages + right_offset), b, depth, end)
        close_group()
        if np.uint32(depth + step) < end:
            stage = np.uint32(stages + second_stage)
            load_left(stage, a, np.uint32(depth + step), end)
            load_right(np.uint32(stage + right_offset), b, np.uint32(depth + step), end)
        close_group()
        row, column = position()
        left_address, right_address = left_lane(row), np.uint32(right_lane(column) + right_offset)
        offset = NOTHING
        while depth < end:
            wait_for_older_groups()
            barrier()
            stage = np.uint32(stages + offset)
            multiply(np.uint32(stage + left_address), np.uint32(stage + right_address), sums)
            barrier()
            depth = np.uint32(depth + step)
            if np.uint32(depth + step) < end:
                load_left(stage, a, np.uint32(depth + step), end)
                load_right(np.uint32(stage + right_offset), b, np.uint32(depth + step), end)
            close_group()
            offset = np.uint32(second_stage - offset)

    return tensor_product
