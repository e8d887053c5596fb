"""Each instruction of a warp by itself: what the lanes get of what the lanes gave."""

import functools

import numpy as np
import pytest
from blocks import (
    LANE,
    WARP,
    Block,
    G,
    T,
    decode,
    encode,
    sums_of,
    whole_numbers,
    words_of,
)

from numbanet.device import ZERO, device, float_bits, float_from_bits
from numbanet.storage import warp_halves
from numbanet.tiles import instructions
from numbanet.tiles.fragments import row_pitch

PRECISIONS = ("float16", "bfloat16")
precisions = pytest.mark.parametrize("precision", PRECISIONS)
NOTHING = np.zeros(4, np.uint32)


@functools.cache
def multiply_add(precision):
    mma = instructions.MULTIPLY_ADD[precision]

    @device
    def body(thread, shared, given, results):
        i = np.uint32(thread * np.uint32(10))
        a = given[i], given[i + 1], given[i + 2], given[i + 3]
        c = (
            float_from_bits(given[i + 6]),
            float_from_bits(given[i + 7]),
            float_from_bits(given[i + 8]),
            float_from_bits(given[i + 9]),
        )
        d = mma(a, given[i + 4], given[i + 5], c)
        i = np.uint32(thread * np.uint32(4))
        results[i], results[i + 1] = float_bits(d[0]), float_bits(d[1])
        results[i + 2], results[i + 3] = float_bits(d[2]), float_bits(d[3])

    return body


def column_words(matrix, precision):
    """Words [32, 2] of lanes, of a matrix [16, 8] as the second factor."""
    bits = encode(matrix, precision).astype(np.uint32)
    return np.stack(
        [bits[2 * T + low, G] | bits[2 * T + low + 1, G] << 16 for low in (0, 8)], axis=1
    )


@precisions
def test_multiply_add(precision):
    rng = np.random.default_rng(0)
    for draw in (whole_numbers, lambda seed, *shape: rng.normal(size=shape)):
        a, b, c = draw(0, 16, 16), draw(1, 16, 8), draw(2, 16, 8)
        a, b = (decode(encode(x, precision), precision) for x in (a, b))
        given = np.concatenate(
            [
                words_of(a, precision),
                column_words(b, precision),
                sums_of(c).view(np.uint32),
            ],
            axis=1,
        )
        block = Block(multiply_add(precision), NOTHING, given, n_results=4)
        expected = sums_of(a @ b + c.astype(np.float32))
        np.testing.assert_allclose(block.results.view(np.float32), expected, rtol=1e-6, atol=1e-6)
        assert block.counters.mma == 1


@functools.cache
def floats_and_differences(precision):
    subtract, ones = warp_halves.floats_and_differences(precision), warp_halves.units(precision)

    @device
    def body(thread, shared, given, results):
        i, j = np.uint32(thread * np.uint32(4)), np.uint32(thread * np.uint32(8))
        words = given[i], given[i + 1], given[i + 2], given[i + 3]
        floats, differences = subtract(ones(ZERO), words[0], words[1], words[2], words[3])
        for k in range(4):
            results[j + k] = float_bits(floats[k])
            results[j + 4 + k] = float_bits(differences[k])

    return body


@precisions
def test_floats_and_differences_of_a_lanes_own_words(precision):
    values = np.random.default_rng(0).normal(size=(WARP, 4, 2))  # low, high, other low, other high
    bits = encode(values, precision).astype(np.uint32)
    given = bits[..., 0] | bits[..., 1] << 16
    block = Block(floats_and_differences(precision), NOTHING, given, n_results=8)
    low, high = np.moveaxis(decode(bits.astype(np.uint16), precision).reshape(WARP, 2, 2, 2), 2, 0)
    expected = np.stack([low, high - low], axis=1).reshape(WARP, 8)
    assert np.array_equal(block.results.view(np.float32), expected.astype(np.float32))
    assert block.counters.mma == 2


@functools.cache
def load_matrices(transposed):
    load = instructions.ldmatrix_transposed if transposed else instructions.ldmatrix

    @device
    def body(thread, shared, given, results):
        words, i = load(np.uint32(shared + given[thread])), np.uint32(thread * np.uint32(4))
        results[i], results[i + 1] = words[0], words[1]
        results[i + 2], results[i + 3] = words[2], words[3]

    return body


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("width", [16, 32, 48, 64, 80, 128])
def test_matrix_loads(transposed, width):
    """Four matrices whose rows lie anywhere; those of rows in order meet no bank twice."""
    pitch = row_pitch(width)
    memory = np.arange(WARP * pitch // 2, dtype=np.uint16)
    for rows in (LANE, np.random.default_rng(0).permutation(WARP)):
        block = Block(load_matrices(transposed), memory, (rows * pitch).astype(np.uint32), 4)
        for m in range(4):
            matrix = memory.reshape(WARP, -1)[rows[8 * m : 8 * m + 8], :8].astype(np.uint32)
            matrix = matrix.T if transposed else matrix
            expected = matrix[G, 2 * T] | matrix[G, 2 * T + 1] << 16
            np.testing.assert_array_equal(block.results[:, m], expected)
        assert (block.shared == memory.view(np.uint8)).all()
        assert block.count("ldmatrix") == 1
        assert block.counters.shared_conflicts == 0 or rows is not LANE


@device
def store_matrices(thread, shared, given, results):
    i = np.uint32(thread * np.uint32(5))
    words = given[i + 1], given[i + 2], given[i + 3], given[i + 4]
    instructions.stmatrix(np.uint32(shared + given[i]), words)


def test_matrix_stores():
    pitch, words = row_pitch(16), np.arange(1, WARP * 4 + 1, dtype=np.uint32).reshape(WARP, 4)
    rows = np.random.default_rng(0).permutation(WARP)
    given = np.concatenate([(rows * pitch).astype(np.uint32)[:, None], words], axis=1)
    memory = np.zeros(WARP * pitch // 4, np.uint32)
    expected = memory.copy().reshape(WARP, -1)
    for m in range(4):
        expected[rows[8 * m + G], T] = words[:, m]
    block = Block(store_matrices, memory, given)
    np.testing.assert_array_equal(block.shared.view(np.uint32), expected.reshape(-1))


@device
def move_words(thread, shared, given, results):
    i, half = np.uint32(thread * np.uint32(4)), np.uint32(given[0])
    place = np.uint32(shared + thread * given[1])
    words = instructions.load_words(place)
    results[i], results[i + 1] = words[0], words[1]
    results[i + 2], results[i + 3] = words[2], words[3]
    instructions.store_words(np.uint32(place + half), (words[3], words[2], words[1], words[0]))


@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_four_words(width):
    """Each lane at its row: without conflicts, thanks to the distance of the rows."""
    pitch = row_pitch(width)
    half = WARP * pitch
    memory = np.arange(2 * half // 4, dtype=np.uint32)
    block = Block(move_words, memory, np.array([half, pitch], np.uint32), 4)
    rows = memory[: half // 4].reshape(WARP, -1)[:, :4]
    np.testing.assert_array_equal(block.results, rows)
    expected = memory.copy()
    expected[half // 4 :].reshape(WARP, -1)[:, :4] = rows[:, ::-1]
    np.testing.assert_array_equal(block.shared.view(np.uint32), expected)
    assert block.counters.shared_conflicts == 0
    assert (block.count("ld.shared.v4"), block.count("st.shared.v4")) == (1, 1)


@device
def exchange_words(thread, shared, given, results):
    other = np.uint32(thread ^ np.uint32(1))
    instructions.store_word(np.uint32(shared + np.uint32(4) * thread), given[thread])
    instructions.warp_barrier()
    results[thread] = instructions.load_word(np.uint32(shared + np.uint32(4) * other))


def test_what_lanes_wrote_before_a_warp_barrier_is_seen_after_it():
    given = np.random.default_rng(0).integers(0, 2**32, WARP, np.uint32)
    block = Block(exchange_words, np.zeros(WARP, np.uint32), given, 1)
    np.testing.assert_array_equal(block.results[:, 0], given[LANE ^ 1])
