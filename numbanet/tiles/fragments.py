"""Matrices of halves between registers and shared memory: a warp's products of 16 rows.

A fragment is what a warp holds of a matrix with 16 rows: words [4 n] for 16 n columns of halves,
and sums [8 n] for the same columns of float32; word q and sums 2 q and 2 q + 1 are the same places.
So the sums of one product, converted in pairs, are the operand of the next one.

Rows in shared memory have a pitch that is an odd multiple of 16 bytes: whatever 8 rows one
instruction reads, their 16-byte pieces lie in different banks.
"""

from functools import cache

from numbanet.architecture import HOPPER, compute_capability
from numbanet.device import ZERO, device, four_from, set_four, unrolled
from numbanet.tiles.instructions import (
    MULTIPLY_ADD,
    ldmatrix,
    ldmatrix_transposed,
    stmatrix,
    store_word,
    warp_barrier,
)

ROWS = 16  # of a fragment
PIECE = 16  # bytes of a row of an 8 x 8 matrix


def row_pitch(width: int) -> int:
    """Bytes from one row of halves to the next; the width is a multiple of 16."""
    return 2 * width + 16


# Where a lane's accesses begin, in bytes from the first of some rows.


@cache
def lane_rows(pitch: int, piece: int = PIECE):
    """Device function lane -> its row for ldmatrix: 16 rows, then the same at columns + 8."""
    row, column = pitch, piece

    @device
    def lane_rows(lane):
        return (lane & 15) * row + (lane >> 4) * column

    return lane_rows


@cache
def lane_columns(pitch: int, piece: int = PIECE):
    """Device function lane -> its row for ldmatrix: 8 rows, these at columns + 8, then 8 more."""
    row, column = pitch, piece

    @device
    def lane_columns(lane):
        of_16 = (lane & 7) + ((lane >> 4) << 3)
        return of_16 * row + ((lane >> 3) & 1) * column

    return lane_columns


@cache
def product(
    precision: str, n_deep: int, n_wide: int, pitch: int, transposed: bool, n_fragments: int = 1
):
    """Device function (words, address, sums): sums = words times a matrix in shared memory.

    The matrix has 16 n_deep x 16 n_wide numbers, the depth along its rows, or, transposed, across
    them; the address is that of the lane: by lane_rows, or lane_columns where it is transposed.
    Several fragments lie one after the other, and the matrix is read once for all of them.
    """
    multiply_add = MULTIPLY_ADD[precision]
    n_blocks, n_sums, n_words = n_deep * n_wide, 8 * n_wide, 4 * n_deep
    n_all_sums = n_fragments * n_sums
    one_by_one = n_fragments > 1  # columns, so that not all sums are in registers at a time

    @device
    def multiply(fragment, k, j, b, words, sums):
        q = n_words * fragment + 4 * k
        a = four_from(words, q)
        i = n_sums * fragment + 8 * j
        c = four_from(sums, i)
        set_four(sums, i, multiply_add(a, b[0], b[1], c))
        i += 4
        c = four_from(sums, i)
        set_four(sums, i, multiply_add(a, b[2], b[3], c))

    @device
    def block(index, words, address, sums):  # 16 x 16 of the matrix
        if one_by_one:
            k, j = index % n_deep, index // n_deep
        else:
            k, j = index // n_wide, index % n_wide
        if transposed:
            b = ldmatrix(address + (ROWS * pitch * j + 32 * k))
        else:
            b = ldmatrix_transposed(address + (ROWS * pitch * k + 32 * j))
        unrolled(n_fragments, multiply, k, j, b, words, sums)

    @device
    def clear(k, sums):
        sums[k] = ZERO

    @device
    def product(words, address, sums):
        unrolled(n_all_sums, clear, sums)
        unrolled(n_blocks, block, words, address, sums)

    return product


@cache
def add_outer_product(precision: str):
    """Device function (a, b, sums, first): add a 16 x 16 block of a^T b over 16 rows.

    a and b are what ldmatrix_transposed gives for the rows of both: by lane_columns for a, by
    lane_rows for b. The block lies at sums[first : first + 8].
    """
    multiply_add = MULTIPLY_ADD[precision]

    @device
    def add_outer_product(a, b, sums, first):
        i = first
        c = four_from(sums, i)
        set_four(sums, i, multiply_add(a, b[0], b[1], c))
        i += 4
        c = four_from(sums, i)
        set_four(sums, i, multiply_add(a, b[2], b[3], c))

    return add_outer_product


@cache
def load_rows(n_wide: int, piece: int = PIECE):
    """Device function (address, words): read rows; the address is the lane's, by lane_rows."""

    @device
    def load_block(k, address, words):
        block = ldmatrix(address + 2 * piece * k)
        set_four(words, 4 * k, block)

    @device
    def load_rows(address, words):
        unrolled(n_wide, load_block, address, words)

    return load_rows


@cache
def store_rows(n_wide: int, pitch: int, piece: int = PIECE):
    """Device function (rows, lane, words): write 16 rows that begin at an address."""
    of_lane, n_words = lane_rows(pitch, piece), 4 * n_wide

    @device
    def store_block(k, address, words):
        block = four_from(words, 4 * k)
        stmatrix(address + 2 * piece * k, block)

    @device
    def store_one(q, address, words):
        offset = 2 * piece * (q // 4) + 8 * pitch * (q % 2) + piece * (q // 2 % 2)
        store_word(address + offset, words[q])

    @device
    def store_rows(rows, lane, words):
        if compute_capability() >= HOPPER:
            unrolled(n_wide, store_block, rows + of_lane(lane), words)
        else:
            warp_barrier()  # another lane's ldmatrix may have read here
            row, column = lane >> 2, lane & 3
            place = row * pitch + column * 4
            unrolled(n_words, store_one, rows + place, words)

    return store_rows
