"""Products of fragments and copies of rows, each by itself, against NumPy."""

import functools

import numpy as np
import pytest
from blocks import WARP, Block, Rows, decode, encode, sums_of, whole_numbers, words_of

from numbanet.device import device, float_bits, float_from_bits, local_array, uint32_view, unrolled
from numbanet.tiles import fragments
from numbanet.tiles.copies import copy_rows
from numbanet.tiles.fragments import ROWS, lane_columns, lane_rows, row_pitch
from numbanet.tiles.instructions import ldmatrix_transposed, wait_for_copies

PRECISIONS = ("float16", "bfloat16")
CAPABILITIES = ((8, 0), (9, 0))
precisions = pytest.mark.parametrize("precision", PRECISIONS)


@device
def put_sum(k, results, first, sums):
    results[first + np.uint32(k)] = float_bits(sums[k])


@device
def take_word(k, given, first, words):
    words[k] = given[first + np.uint32(k)]


@functools.cache
def product_body(precision, n_deep, n_wide, transposed):
    """sums = words times a matrix: 16 n_deep deep and 16 n_wide wide, or stored transposed."""
    pitch = row_pitch(16 * (n_deep if transposed else n_wide))
    multiply = fragments.product(precision, n_deep, n_wide, pitch, transposed)
    place = lane_columns(pitch) if transposed else lane_rows(pitch)
    n_words, n_sums = 4 * n_deep, 8 * n_wide

    @device
    def body(thread, shared, given, results):
        words, sums = uint32_view(local_array(n_words)), local_array(n_sums)
        unrolled(n_words, take_word, given, np.uint32(thread * np.uint32(n_words)), words)
        multiply(words, np.uint32(shared + place(thread)), sums)
        unrolled(n_sums, put_sum, results, np.uint32(thread * np.uint32(n_sums)), sums)

    return body, pitch, n_sums


@precisions
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("n_deep", "n_wide"), [(1, 1), (2, 4), (3, 1), (4, 4), (1, 8), (8, 1)])
def test_product(precision, transposed, n_deep, n_wide):
    body, pitch, n_sums = product_body(precision, n_deep, n_wide, transposed)
    a, matrix = whole_numbers(0, ROWS, 16 * n_deep), whole_numbers(1, 16 * n_deep, 16 * n_wide)
    rows = Rows(matrix.T if transposed else matrix, precision, pitch)
    block = Block(body, rows.bytes, words_of(a, precision), n_sums)
    np.testing.assert_array_equal(block.results.view(np.float32), sums_of(a @ matrix))
    assert block.counters.mma == 2 * n_deep * n_wide
    assert block.count("ldmatrix") == n_deep * n_wide
    assert block.counters.shared_conflicts == 0


@functools.cache
def outer_product_body(precision, n_rows, pitch_a, pitch_b, first):
    """Adds the products of 16 columns of two matrices, which lie one after the other."""
    add, of_a, of_b = (
        fragments.add_outer_product(precision),
        lane_columns(pitch_a),
        lane_rows(pitch_b),
    )
    n_steps, n_sums, start_b = n_rows // ROWS, first + 8, n_rows * pitch_a

    @device
    def step(k, a_address, b_address, sums):
        a = ldmatrix_transposed(np.uint32(a_address + np.uint32(ROWS * pitch_a * k)))
        b = ldmatrix_transposed(np.uint32(b_address + np.uint32(ROWS * pitch_b * k)))
        add(a, b, sums, first)

    @device
    def take_sum(k, given, at, sums):
        sums[k] = float_from_bits(given[at + np.uint32(k)])

    @device
    def body(thread, shared, given, results):
        sums, at = local_array(n_sums), np.uint32(thread * np.uint32(n_sums))
        unrolled(n_sums, take_sum, given, at, sums)
        a_address = np.uint32(shared + of_a(thread))
        b_address = np.uint32(shared + np.uint32(start_b) + of_b(thread))
        unrolled(n_steps, step, a_address, b_address, sums)
        unrolled(n_sums, put_sum, results, at, sums)

    return body


@precisions
@pytest.mark.parametrize(("n_rows", "first"), [(16, 0), (48, 8)])
def test_outer_products_are_added(precision, n_rows, first):
    """Of the first 16 columns of wider rows, to some of the sums."""
    a, b = whole_numbers(0, n_rows, 32), whole_numbers(1, n_rows, 64)
    before = whole_numbers(2, ROWS, 16 + 2 * first)
    pitch_a, pitch_b = row_pitch(32), row_pitch(64)
    memory = np.concatenate(
        [Rows(x, precision, pitch).bytes.reshape(-1) for x, pitch in ((a, pitch_a), (b, pitch_b))]
    )
    body = outer_product_body(precision, n_rows, pitch_a, pitch_b, first)
    given = sums_of(before)
    block = Block(body, memory, given, first + 8)
    expected = given.copy()
    expected[:, first:] += sums_of(a[:, :16].T @ b[:, :16])
    np.testing.assert_array_equal(block.results.view(np.float32), expected)
    assert block.counters.mma == 2 * n_rows // ROWS
    assert block.counters.shared_conflicts == 0


@functools.cache
def move_rows_body(n_wide):
    """Rows to fragments, and these to the rows that follow."""
    pitch, n_words = row_pitch(16 * n_wide), 4 * n_wide
    read, of_lane = fragments.load_rows(n_wide), lane_rows(row_pitch(16 * n_wide))
    write, target = fragments.store_rows(n_wide, pitch), ROWS * pitch

    @device
    def put_word(k, results, first, words):
        results[first + np.uint32(k)] = words[k]

    @device
    def body(thread, shared, given, results):
        words = uint32_view(local_array(n_words))
        read(np.uint32(shared + of_lane(thread)), words)
        unrolled(n_words, put_word, results, np.uint32(thread * np.uint32(n_words)), words)
        write(np.uint32(shared + np.uint32(target)), thread, words)

    return body


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("n_wide", [1, 2, 3, 4, 8])
def test_rows_are_loaded_and_stored(capability, n_wide):
    pitch = row_pitch(16 * n_wide)
    matrix = np.random.default_rng(0).normal(size=(2 * ROWS, 16 * n_wide))
    rows = Rows(matrix, "float16", pitch)
    block = Block(move_rows_body(n_wide), rows.bytes, (), 4 * n_wide, capability=capability)
    np.testing.assert_array_equal(block.results, words_of(matrix[:ROWS], "float16"))
    first, second = np.split(rows.read(block.shared), 2)
    np.testing.assert_array_equal(first, second)
    assert block.count("stmatrix") == (n_wide if capability == (9, 0) else 0)
    assert block.counters.shared_conflicts == 0


@functools.cache
def copy_body(n_rows, width, pitch, n_threads):
    copy = copy_rows(n_rows, width, pitch, n_threads)

    @device
    def body(thread, shared, given, results):
        copy(thread, np.uint64(given.ctypes.data), shared)
        wait_for_copies()

    return body


@pytest.mark.parametrize("n_threads", [32, 128])
@pytest.mark.parametrize(("n_rows", "width"), [(16, 16), (16, 64), (64, 32), (5, 48), (128, 128)])
def test_copies_of_rows(n_threads, n_rows, width):
    pitch = row_pitch(width)
    matrix = np.random.default_rng(0).normal(size=(n_rows, width))
    before = Rows(np.zeros((n_rows, width)), "float16", pitch)
    body = copy_body(n_rows, width, pitch, n_threads)
    source = encode(matrix, "float16")
    block = Block(body, before.bytes, source, n_threads=n_threads)
    np.testing.assert_array_equal(before.read(block.shared), decode(source, "float16"))
    assert block.count("cp.async") - block.count("cp.async.wait") == -(-n_rows * width // 8 // WARP)


@pytest.mark.parametrize("width", range(16, 257, 16))
def test_eight_rows_lie_in_different_banks(width):
    """Whatever 16-byte column of 8 rows in order is accessed, no bank has two of its words."""
    words = np.arange(8)[:, None] * row_pitch(width) // 4 + np.arange(4)
    assert np.unique(words % 32).size == 32
