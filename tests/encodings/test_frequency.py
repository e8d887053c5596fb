"""Frequency: known numbers, and accuracy where a float32 sine has none."""

from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from numbanet.encodings.frequency import Frequency
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)


@cache
def encoding(n_frequencies):
    return Frequency(n_dims=1, n_frequencies=n_frequencies)


def features(x, n_frequencies):
    y = np.full(2 * n_frequencies, 99, np.float32)
    encoding(n_frequencies).forward(np.array([x], np.float32), NONE, y)
    return y


def test_known_features():
    expected = [0.80901699, 0.58778525, 0.95105652, -0.30901699, -0.58778525, -0.80901699]
    np.testing.assert_allclose(features(0.3, 3), expected, atol=1e-6)


def exact_angles(x, n_frequencies):
    """pi 2^k x less whole turns, computed with integers, which have no largest frequency."""
    turns = [Fraction(float(np.float32(x))) * 2**k % 2 for k in range(n_frequencies)]
    return np.pi * np.array(turns, np.float64)


def waves_of(angles):
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).ravel()


@given(x=st.floats(width=32, allow_nan=False, allow_infinity=False))
@example(x=0.5 + 2**-24)
@example(x=2048.25)
@example(x=2.0**24 - 1)
@example(x=-3.4e38)
def test_high_frequencies_are_as_exact_as_low_ones(x):
    """A multiple of pi in float32 would be off by 1e-3 at frequency 2^11."""
    np.testing.assert_allclose(features(x, 32), waves_of(exact_angles(x, 32)), atol=4e-7)


@pytest.mark.parametrize("x", [0.3, 0.5 + 2**-24, 5000.125, -1e6 - 0.5, 3e20])
def test_high_frequencies_have_exact_derivatives(x):
    x = np.array([x], np.float32)
    factors = np.pi * 2.0 ** np.arange(32)
    angles = exact_angles(x[0], 32)
    slopes = np.stack([factors * np.cos(angles), -factors * np.sin(angles)], axis=-1).ravel()
    curvatures = -np.repeat(factors**2, 2) * waves_of(angles)
    for k, dl_dy in enumerate(np.eye(64, dtype=np.float32)):
        dl_dx, dl_ddy, second = np.empty(1, np.float32), np.empty(64, np.float32), x.copy()
        encoding(32).backward_input(x, NONE, dl_dy, dl_dx)
        encoding(32).double_backward_input(x, NONE, dl_dy, np.ones(1, np.float32), dl_ddy, second)
        factor = factors[k // 2]
        np.testing.assert_allclose(dl_dx[0] / factor, slopes[k] / factor, atol=6e-7)
        np.testing.assert_allclose(second[0] / factor**2, curvatures[k] / factor**2, atol=6e-7)
    np.testing.assert_allclose(
        dl_ddy / np.repeat(factors, 2), slopes / np.repeat(factors, 2), atol=6e-7
    )


@pytest.mark.parametrize("n_frequencies", [0, -1, 33])
def test_number_of_frequencies(n_frequencies):
    config = {"otype": "Frequency", "n_frequencies": n_frequencies}
    with pytest.raises(ConfigError, match=rf"^encoding\.n_frequencies: {n_frequencies} .*1 to 32"):
        create("encoding", config, default="OneBlob", n_dims=2)
