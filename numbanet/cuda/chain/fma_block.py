"""Matrix product of one block: a tile of the result, of operands in any layout.

The block takes 16 steps of the depth at a time: its 256 threads fetch both operands along their
contiguous direction, leave them as float32 in shared memory, [depth, side], and keep 4 x 8 or
4 x 4 results each in registers. While they multiply, the next step is on its way.
"""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import (
    barrier,
    load_shared_pair,
    shared_array,
    thread_index,
)
from numbanet.device import ZERO, device, float_from_bits, local_array, uint32_view
from numbanet.storage.halves import bfloat16_to_float, float16_to_float
from numbanet.storage.views import bfloat_vector, uint32_vector

N_THREADS = 256  # 16 x 16: a thread's rows and columns are pairs, 32 apart
DEPTH = 16
ROWS = 64
PAD = 2  # keeps pairs aligned, and puts 16 steps of the depth and 2 neighbours into 32 banks
TWO, SIXTEEN = 2, 16
NOTHING = np.uint32(0)

# A number is fetched before anything waits for it: as bits, converted later.
BITS = {"float32": uint32_vector, "float16": bfloat_vector, "bfloat16": bfloat_vector}
FROM_BITS = {"float32": float_from_bits, "float16": float16_to_float, "bfloat16": bfloat16_to_float}


@cache
def operand(precision: str, size: int, along_depth: bool):
    """Device functions (fetch, deposit) for a tile of one operand, [DEPTH, size] in shared memory.

    In global memory, the operand is contiguous along the depth, or else along the other side.
    """
    to_float = FROM_BITS[precision]
    per_thread = size * DEPTH // N_THREADS
    shared_pitch = size + PAD
    n_lanes = DEPTH if along_depth else size
    step = N_THREADS // (DEPTH if along_depth else size)

    @device
    def position(j):  # of a thread's j-th element in the tile
        lane = thread_index() % n_lanes
        other = thread_index() // n_lanes + j * step
        if along_depth:
            return other, lane
        return lane, other

    @device
    def fetch(source, pitch, first, end, first_depth, end_depth, fetched):
        bits = uint32_view(fetched)
        for j in range(per_thread):
            side, depth = position(j)
            side, depth = side + first, depth + first_depth
            i = side * pitch + depth if along_depth else depth * pitch + side
            bits[j] = NOTHING
            if (side < end) & (depth < end_depth):
                bits[j] = source[i]

    @device
    def deposit(fetched, tile):
        bits = uint32_view(fetched)
        for j in range(per_thread):
            side, depth = position(j)
            tile[depth * shared_pitch + side] = to_float(bits[j])

    return fetch, deposit


@cache
def tile_product(n_columns: int):
    """Device function (rows_tile, columns_tile, sums): add the product of tiles in shared memory.

    sums [4, n_columns / 16] are those of one thread.
    """
    row_pairs, column_pairs = ROWS // 32, n_columns // 32
    n_rows, n_sums = 2 * row_pairs, 2 * column_pairs
    row_pitch, column_pitch = ROWS + PAD, n_columns + PAD
    end_of_rows = DEPTH * row_pitch

    @device
    def add_outer_product(rows_tile, row, columns_tile, column, a, b, sums):
        for k in range(row_pairs):
            a[2 * k], a[2 * k + 1] = load_shared_pair(rows_tile, row + 32 * k)
        for k in range(column_pairs):
            b[2 * k], b[2 * k + 1] = load_shared_pair(columns_tile, column + 32 * k)
        for r in range(n_rows):
            for c in range(n_sums):
                sums[r * n_sums + c] += a[r] * b[c]

    @device
    def tile_product(rows_tile, columns_tile, sums):
        a, b = local_array(n_rows), local_array(n_sums)
        row, column = thread_position()
        row, column = np.int64(row), np.int64(column)  # so that offsets go into the instructions
        end = row + end_of_rows
        while row < end:  # four steps at a time, written out: NVVM does not unroll so long a loop
            add_outer_product(rows_tile, row, columns_tile, column, a, b, sums)
            row, column = row + row_pitch, column + column_pitch
            add_outer_product(rows_tile, row, columns_tile, column, a, b, sums)
            row, column = row + row_pitch, column + column_pitch
            add_outer_product(rows_tile, row, columns_tile, column, a, b, sums)
            row, column = row + row_pitch, column + column_pitch
            add_outer_product(rows_tile, row, columns_tile, column, a, b, sums)
            row, column = row + row_pitch, column + column_pitch

    return tile_product


@device
def thread_position():  # the first row and column of a thread in its block's tile
    t = thread_index()
    return TWO * (t // SIXTEEN), TWO * (t % SIXTEEN)


@cache
def block_product(precision: str, n_columns: int, a_along_depth: bool, b_along_depth: bool):
    """Device function (a, b, depths, sums): the product of a's rows and b's columns.

    a and b are tuples of an array, its pitch, and the first and the end of the rows or columns;
    depths are the first one and the end.
    """
    fetch_a, deposit_a = operand(precision, ROWS, a_along_depth)
    fetch_b, deposit_b = operand(precision, n_columns, b_along_depth)
    multiply = tile_product(n_columns)
    a_size, b_size = (ROWS + PAD) * DEPTH, (n_columns + PAD) * DEPTH
    a_fetched, b_fetched = ROWS * DEPTH // N_THREADS, n_columns * DEPTH // N_THREADS
    n_sums = ROWS * n_columns // N_THREADS

    @device
    def block_product(a, b, depths, sums):
        a_array, a_pitch, a_first, a_end = a
        b_array, b_pitch, b_first, b_end = b
        depth, end = depths
        a_tile, b_tile = shared_array(a_size), shared_array(b_size)
        next_a, next_b = local_array(a_fetched), local_array(b_fetched)
        for k in range(n_sums):
            sums[k] = ZERO
        fetch_a(a_array, a_pitch, a_first, a_end, depth, end, next_a)
        fetch_b(b_array, b_pitch, b_first, b_end, depth, end, next_b)
        while depth < end:
            deposit_a(next_a, a_tile)
            deposit_b(next_b, b_tile)
            barrier()
            depth += DEPTH
            if depth < end:
                fetch_a(a_array, a_pitch, a_first, a_end, depth, end, next_a)
                fetch_b(b_array, b_pitch, b_first, b_end, depth, end, next_b)
            multiply(a_tile, b_tile, sums)
            barrier()

    return block_product
