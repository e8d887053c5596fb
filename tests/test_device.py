"""The vocabulary of device code."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit
from numba.core.errors import TypingError

from numbanet.device import device, less_even, power_of_two, sin_pi, unrolled, vectorized

# x + shift is a multiple of 1/2, or anything else
positions = st.one_of(
    st.floats(-8, 8, width=32), st.floats(-(2**21), 2**21, width=32), st.integers(-99, 99)
)


def sine(x, half_turns):
    """sin(pi (x + half_turns / 2)) without an error that grows with x."""
    return np.sin(np.pi * (np.float64(np.float32(x)) % 2) + half_turns * np.pi / 2)


@given(x=positions, half_turns=st.integers(-3, 3))
def test_sine_of_half_turns(x, half_turns):
    found = sin_pi(np.float32(x), np.float32(half_turns / 2))
    assert abs(found - sine(x, half_turns)) < 3e-7


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(x=2.0**24 - 1)
@example(x=2.0**22 + 0.5)
def test_less_even_takes_whole_periods_off(x):
    rest = less_even(np.float32(x))
    assert abs(rest) <= 2
    assert (Fraction(x) - Fraction(float(rest))) % 2 == 0


@pytest.mark.parametrize("k", [-126, -3, 0, 1, 31, 127])
def test_powers_of_two_are_exact(k):
    assert power_of_two(k) == np.float32(2.0**k)


WEIGHTS = (np.float32(3), np.float32(5), np.float32(7))


@device
def add_weighted(k, x, total):
    total[k] += WEIGHTS[k] * x


@device
def count(k, total):
    total[0] += np.float32(k)


@njit
def use_unrolled(total):
    unrolled(3, add_weighted, np.float32(2), total)
    unrolled(0, count, total)


@njit
def use_vectorized(total):
    vectorized(3, add_weighted, np.float32(2), total)
    vectorized(100, count, total[3:])
    vectorized(0, count, total)


def test_every_number_is_called_once():
    total = np.ones(4, np.float32)
    use_unrolled(total)
    assert total.tolist() == [7, 11, 15, 1]
    use_vectorized(total)
    assert total.tolist() == [13, 21, 29, 1 + 99 * 50]


def test_the_number_of_calls_is_known_at_compile_time():
    @njit
    def use(n, total):
        unrolled(n, count, total)

    with pytest.raises(TypingError, match="known at compile time"):
        use(3, np.zeros(1, np.float32))
