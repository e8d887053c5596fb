"""pcg32 against known numbers and against Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.device import shared_device
from numbanet.random import Pcg32, seed_sequence
from numbanet.targets import target_for

WORD = 2**64
SEEDS = st.integers(0, WORD - 1)
# Around the blocks of 512 that the device fill works in.
SIZES = (0, 1, 2, 15, 16, 127, 128, 129, 511, 512, 513, 1000, 4099)


def draws(seed, n):
    """n numbers of the stream, from the definition."""
    state = 0
    values = []
    for k in range(n + 2):
        word = ((state >> 18 ^ state) >> 27) % 2**32
        turn = state >> 59
        values.append((word >> turn | word << (32 - turn) % 32) % 2**32)
        state = (state * 0x5851F42D4C957F2D + 3) % WORD
        if k == 0:
            state = (state + seed) % WORD
    return values[2:]


def floats(seed, n):
    return np.array([(draw >> 9) / 2**23 for draw in draws(seed, n)], np.float32)


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (1337, [634364130, 2023056239, 747258445, 554556854]),
        (2150097757, [490526434, 3914230802, 2427584315, 3508213524]),
    ],
)
def test_known_draws(seed, expected):
    rng = Pcg32(seed)
    assert [rng.next_uint() for _ in range(4)] == expected


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (1337, [0.147699356, 0.471029401, 0.173984647, 0.129117727]),
        (2150097757, [0.114209533, 0.911352873, 0.565215945, 0.816819549]),
    ],
)
def test_known_floats(seed, expected):
    rng = Pcg32(seed)
    one_by_one = [rng.next_float() for _ in range(4)]
    np.testing.assert_allclose(one_by_one, expected, atol=1e-9, rtol=0)
    np.testing.assert_array_equal(Pcg32(seed).uniform(4), np.float32(one_by_one))


def test_advance_skips_the_known_number_of_draws():
    rng = Pcg32(1337)
    rng.advance(1000)
    assert rng.next_uint() == 45264763


@pytest.mark.parametrize(
    ("seed", "word"),  # printed by a C++ program, libstdc++
    [
        (0, 2061087650),
        (1, 1657803123),
        (42, 3788537066),
        (1337, 2150097757),
        (123456789, 3525033454),
        (2**32 - 1, 3176832897),
    ],
)
def test_seed_sequence_is_that_of_cpp(seed, word):
    assert seed_sequence(seed) == word
    assert seed_sequence(seed + 2**32) == word


@given(SEEDS)
def test_every_seed_gives_the_stream_of_the_definition(seed):
    rng = Pcg32(seed)
    assert [rng.next_uint() for _ in range(8)] == draws(seed, 8)


def test_numpy_seeds_are_welcome():
    assert Pcg32(np.int64(5)).state == Pcg32(5).state
    assert seed_sequence(np.int64(5)) == seed_sequence(5)


@given(SEEDS, st.integers(0, WORD - 1), st.integers(0, WORD - 1))
def test_advances_add_up(seed, first, second):
    stepwise, at_once = Pcg32(seed), Pcg32(seed)
    stepwise.advance(first)
    stepwise.advance(second)
    at_once.advance(first + second)
    assert stepwise.state == at_once.state
    at_once.advance(-first - second)
    assert at_once.state == Pcg32(seed).state


@pytest.mark.parametrize("n", SIZES)
def test_uniform_draws_in_order(n):
    rng = Pcg32(7)
    values = rng.uniform(n)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, floats(7, n))
    assert rng.next_uint() == draws(7, n + 1)[n]


@pytest.mark.parametrize("n", SIZES)
def test_device_uniform_scatters_the_draws_as_the_device_does(n):
    """Thread t of n_threads draws numbers 4t ... 4t+3 and stores number j at t + j n_threads."""
    n_threads = (n + 511) // 512 * 128
    stream = floats(7, 4 * n_threads)
    expected = np.empty(n, np.float32)
    for t in range(n_threads):
        for j in range(4):
            if t + j * n_threads < n:
                expected[t + j * n_threads] = stream[4 * t + j]
    rng = Pcg32(7)
    values = rng.device_uniform(n)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected)
    assert rng.next_uint() == draws(7, n + 1)[n]


@pytest.mark.parametrize("n", [0, 1, 31, 33, 257, 1000, 2**15 + 3])
@pytest.mark.parametrize("order", ["uniform", "device_uniform"])
def test_every_target_draws_the_same_numbers(order, n):
    seed = 2**63 + 5
    host = Pcg32(seed)
    values = getattr(host, order)(n)
    for target in (target_for("cpu"), target_for(shared_device())):
        rng = Pcg32(seed)
        array = target.to_host(getattr(rng, order)(n, target))
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, values)
        assert rng.state == host.state


def test_values_are_uniform_in_the_unit_interval():
    values = Pcg32(3).device_uniform(100_000)
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 10, (0, 1))[0]
    assert abs(counts - 10_000).max() < 5 * np.sqrt(9_000)  # five standard deviations


def test_a_stream_goes_on_from_its_state():
    rng = Pcg32(11)
    rng.uniform(5)
    again = Pcg32.from_state(rng.state)
    assert isinstance(rng.state, int)  # a snapshot writes it as JSON
    np.testing.assert_array_equal(again.device_uniform(700), rng.device_uniform(700))
    assert again.state == rng.state
