"""Products of warpgroups, and matrices in pieces, each by itself, against NumPy."""

import functools

import numpy as np
import pytest
from blocks import WARP, Block, decode, encode, sums_of, whole_numbers, words_of

from numbanet.cuda.launch.threads import barrier
from numbanet.device import device, float_bits, float_from_bits, local_array, uint32_view, unrolled
from numbanet.tiles.copies import PIECE, PIECE_HALVES, copy_rows
from numbanet.tiles.fragments import ROWS, lane_columns, lane_rows, load_rows, store_rows
from numbanet.tiles.instructions import ldmatrix_transposed, wait_for_copies
from numbanet.tiles.warpgroups import (
    WARPGROUP,
    WARPGROUP_ROWS,
    columns_pitch,
    fence_for_warpgroups,
    warpgroup_outer_product,
    warpgroup_product,
)

precisions = pytest.mark.parametrize("precision", ["float16", "bfloat16"])
THREADS = WARPGROUP * WARP


class Pieces:
    """A matrix of halves in pieces, behind and between bytes that are NaN to who reads them."""

    GUARD, START = 0xFF, 3 * PIECE

    def __init__(self, matrix, precision, n_rows=None):
        """Its pieces of 8 columns lie as far apart as those of a matrix of n_rows."""
        self.precision, (self.n_rows, width) = precision, matrix.shape
        self.pitch, self.n_columns = columns_pitch(n_rows or self.n_rows), width // PIECE_HALVES
        bits = encode(matrix, precision).view(np.uint8)
        self.bytes = np.full(self.START + self.n_columns * self.pitch, self.GUARD, np.uint8)
        self.pieces(self.bytes)[:] = bits.reshape(self.n_rows, self.n_columns, PIECE)

    def pieces(self, memory):
        """View [rows, columns, bytes of a piece] of memory that holds the matrix."""
        columns = memory[self.START : self.bytes.size].reshape(self.n_columns, -1, PIECE)
        return columns[:, : self.n_rows].swapaxes(0, 1)

    def read(self, memory):
        """The matrix in bytes of shared memory, after a check of what lies around it."""
        found = self.pieces(memory).copy()
        rest = memory.copy()
        self.pieces(rest)[:] = self.GUARD
        assert (rest == self.GUARD).all(), "wrote beside its pieces"
        bits = found.reshape(self.n_rows, -1).view(np.uint16)
        return decode(bits, self.precision)


@device
def put_sum(k, results, first, sums):
    results[first + np.uint32(k)] = float_bits(sums[k])


@device
def take_sum(k, given, first, sums):
    sums[k] = float_from_bits(given[first + np.uint32(k)])


@device
def put_word(k, results, first, words):
    results[first + np.uint32(k)] = words[k]


@device
def take_word(k, given, first, words):
    words[k] = given[first + np.uint32(k)]


@device
def show_to_warpgroups():
    fence_for_warpgroups()
    barrier()


def by_lane(of_warp, matrix):
    """What of_warp gives for 16 rows, for the lanes of all warps that have the matrix's rows."""
    return np.concatenate([of_warp(rows) for rows in np.split(matrix, len(matrix) // ROWS)])


@functools.cache
def product_body(precision, n_deep, n_wide, transposed, n_fragments):
    """sums = words times a matrix: 16 n_deep deep and 16 n_wide wide, or stored transposed."""
    multiply = warpgroup_product(precision, n_deep, n_wide, transposed, n_fragments)
    n_words, n_sums, start = 4 * n_deep * n_fragments, 8 * n_wide * n_fragments, Pieces.START

    @device
    def body(thread, shared, given, results):
        words, sums = uint32_view(local_array(n_words)), local_array(n_sums)
        unrolled(n_words, take_word, given, np.uint32(thread * np.uint32(n_words)), words)
        show_to_warpgroups()
        multiply(words, np.uint32(shared + np.uint32(start)), sums)
        unrolled(n_sums, put_sum, results, np.uint32(thread * np.uint32(n_sums)), sums)

    return body


@precisions
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("n_deep", "n_wide", "n_fragments"), [(1, 4, 1), (4, 1, 2), (3, 2, 1), (2, 3, 2), (4, 4, 2)]
)
def test_product(precision, transposed, n_deep, n_wide, n_fragments):
    """By two warpgroups, which read the same matrix."""
    n_groups, body = 2, product_body(precision, n_deep, n_wide, transposed, n_fragments)
    a = whole_numbers(0, n_fragments, n_groups * WARPGROUP_ROWS, 16 * n_deep)
    matrix = whole_numbers(1, 16 * n_deep, 16 * n_wide)
    pieces = Pieces(matrix.T if transposed else matrix, precision)
    words = [by_lane(functools.partial(words_of, precision=precision), rows) for rows in a]
    given, n_sums = np.concatenate(words, axis=1), 8 * n_wide * n_fragments
    block = Block(body, pieces.bytes, given, n_sums, n_groups * THREADS)
    expected = np.concatenate([by_lane(sums_of, rows @ matrix) for rows in a], axis=1)
    np.testing.assert_array_equal(block.results.view(np.float32), expected)
    n_warps = n_groups * WARPGROUP
    assert block.count("wgmma.mma_async") == n_warps * n_deep * n_fragments
    assert block.counters.mma == 2 * n_warps * n_deep * n_wide * n_fragments
    assert block.count("ldmatrix") == block.counters.shared_conflicts == 0


@functools.cache
def outer_product_body(precision, n_columns, n_rows, pitch, first, start_a, start_b):
    """Adds the products of 64 columns of one matrix and n_columns of another."""
    add = warpgroup_outer_product(precision, n_columns, n_rows // ROWS, pitch, first)
    n_sums = first + n_columns // 2

    @device
    def body(thread, shared, given, results):
        sums, at = local_array(n_sums), np.uint32(thread * np.uint32(n_sums))
        unrolled(n_sums, take_sum, given, at, sums)
        show_to_warpgroups()
        add(np.uint32(shared + np.uint32(start_a)), np.uint32(shared + np.uint32(start_b)), sums)
        unrolled(n_sums, put_sum, results, at, sums)

    return body


@precisions
@pytest.mark.parametrize(
    ("n_columns", "n_rows", "first"),
    [(8, 16, 0), (16, 128, 8), (24, 48, 0), (48, 32, 8), (64, 64, 24)],
)
def test_outer_products_are_added(precision, n_columns, n_rows, first):
    """Of the last rows of those that there are, and of the last columns; to some of the sums."""
    n_all, n_before = n_rows + 32, 16
    a, b = whole_numbers(0, n_all, 64), whole_numbers(1, n_all, n_before + n_columns)
    before = whole_numbers(2, 64, 2 * first + n_columns)
    of_a, of_b = (Pieces(matrix, precision) for matrix in (a, b))
    start_a = Pieces.START + 32 * PIECE
    start_b = of_a.bytes.size + start_a + n_before // PIECE_HALVES * of_b.pitch
    body = outer_product_body(precision, n_columns, n_rows, of_a.pitch, first, start_a, start_b)
    given, memory = by_lane(sums_of, before), np.concatenate([of_a.bytes, of_b.bytes])
    block = Block(body, memory, given, given.shape[1], THREADS)
    expected = given.copy()
    expected[:, first:] += by_lane(sums_of, a[32:].T @ b[32:, n_before:])
    np.testing.assert_array_equal(block.results.view(np.float32), expected)
    np.testing.assert_array_equal(block.shared, memory)
    assert block.count("wgmma.mma_async") == WARPGROUP * n_rows // ROWS
    assert block.counters.mma == WARPGROUP * n_rows // ROWS * n_columns // 8
    assert block.count("ldmatrix") == block.counters.shared_conflicts == 0


# What single warps do with matrices in pieces


@functools.cache
def move_rows_body(n_wide, pitch):
    """Rows to fragments, and these to the rows that follow; words of blocks transposed, too."""
    n_words, start, piece = 4 * n_wide, Pieces.START, pitch
    read, write = load_rows(n_wide, pitch), store_rows(n_wide, PIECE, pitch)
    of_lane, of_column = lane_rows(PIECE, pitch), lane_columns(PIECE, pitch)

    @device
    def put_block(k, results, first, address):
        block = ldmatrix_transposed(np.uint32(address + np.uint32(2 * piece * k)))
        i = np.uint32(first + np.uint32(4 * k))
        results[i], results[i + 1], results[i + 2], results[i + 3] = block

    @device
    def body(thread, shared, given, results):
        words, here = uint32_view(local_array(n_words)), np.uint32(shared + np.uint32(start))
        first = np.uint32(thread * np.uint32(2 * n_words))
        read(np.uint32(here + of_lane(thread)), words)
        unrolled(n_words, put_word, results, first, words)
        write(np.uint32(here + np.uint32(ROWS * PIECE)), thread, words)
        first = np.uint32(first + np.uint32(n_words))
        unrolled(n_wide, put_block, results, first, np.uint32(here + of_column(thread)))

    return body


@pytest.mark.parametrize("n_wide", [1, 3, 4])
def test_rows_are_loaded_and_stored(n_wide):
    matrix = np.random.default_rng(0).normal(size=(2 * ROWS, 16 * n_wide))
    pieces = Pieces(matrix, "float16")
    block = Block(move_rows_body(n_wide, pieces.pitch), pieces.bytes, (), 8 * n_wide)
    of_rows, of_columns = np.split(block.results, 2, axis=1)
    np.testing.assert_array_equal(of_rows, words_of(matrix[:ROWS], "float16"))
    blocks = np.split(matrix[:ROWS], n_wide, axis=1)
    expected = np.concatenate([words_of(each.T, "float16") for each in blocks], axis=1)
    np.testing.assert_array_equal(of_columns, expected)
    first, second = np.split(pieces.read(block.shared), 2)
    np.testing.assert_array_equal(first, second)
    assert block.count("stmatrix") == n_wide
    assert block.counters.shared_conflicts == 0


@functools.cache
def copy_body(n_rows, width):
    copy, start = copy_rows(n_rows, width, PIECE, THREADS, columns_pitch(n_rows)), Pieces.START

    @device
    def body(thread, shared, given, results):
        copy(thread, np.uint64(given.ctypes.data), np.uint32(shared + np.uint32(start)))
        wait_for_copies()

    return body


@pytest.mark.parametrize(("n_rows", "width"), [(64, 16), (64, 48), (64, 64), (48, 128)])
def test_copies_of_matrices(n_rows, width):
    """Rows in global memory become pieces."""
    matrix = np.random.default_rng(0).normal(size=(n_rows, width))
    before, source = Pieces(np.zeros((n_rows, width)), "float16"), encode(matrix, "float16")
    block = Block(copy_body(n_rows, width), before.bytes, source, n_threads=THREADS)
    np.testing.assert_array_equal(before.read(block.shared), decode(source, "float16"))
    if width >= 64:  # 8 lanes have pieces of one row
        assert block.counters.shared_conflicts == 0
