"""TriangleWave: known numbers, and the corners of the waves."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numbanet.encodings.triangle_wave import TriangleWave
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)


@cache
def encoding(n_frequencies):
    return TriangleWave(n_dims=1, n_frequencies=n_frequencies)


def features(x, n_frequencies):
    y = np.full(n_frequencies, 99, np.float32)
    encoding(n_frequencies).forward(np.array([x], np.float32), NONE, y)
    return y


def test_known_features():
    expected = [0.4, -0.8, 0.6, 0.8, -0.6, 0.8]
    np.testing.assert_allclose(features(0.3, 6), expected, atol=4e-6)


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(x=0.5 + 2**-24)
@example(x=2.0**24 - 1)
@example(x=-3.4e38)
def test_high_frequencies_are_as_exact_as_low_ones(x):
    periods = [Fraction(float(np.float32(x))) * 2**k / 2 + Fraction(k, 4) for k in range(32)]
    expected = [4 * abs(each % 1 - Fraction(1, 2)) - 1 for each in periods]
    np.testing.assert_allclose(features(x, 32), np.array(expected, np.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "slopes"), [(0.0, [-2, -4, 8, 16]), (1.0, [2, -4, 8, 16]), (0.5, [-2, 4, 8, 16])]
)
def test_the_slope_at_a_corner_is_the_one_to_the_right(x, slopes):
    found = []
    for dl_dy in np.eye(4, dtype=np.float32):
        dl_dx = np.full(1, 99, np.float32)
        encoding(4).backward_input(np.array([x], np.float32), NONE, dl_dy, dl_dx)
        found.append(dl_dx[0])
    assert found == slopes


@pytest.mark.parametrize("n_frequencies", [0, -1, 33])
def test_number_of_frequencies(n_frequencies):
    config = {"otype": "TriangleWave", "n_frequencies": n_frequencies}
    with pytest.raises(ConfigError, match=rf"^encoding\.n_frequencies: {n_frequencies} .*1 to 32"):
        create("encoding", config, default="OneBlob", n_dims=2)
