"""Frequency: known numbers, and accuracy where a float32 sine has none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.encodings.frequency import Frequency
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)


def features(x, n_frequencies):
    y = np.full(2 * n_frequencies, 99, np.float32)
    Frequency(n_dims=1, n_frequencies=n_frequencies).forward(np.array([x], np.float32), NONE, y)
    return y


def test_known_features():
    expected = [0.80901699, 0.58778525, 0.95105652, -0.30901699, -0.58778525, -0.80901699]
    np.testing.assert_allclose(features(0.3, 3), expected, atol=1e-6)


@given(x=st.floats(-1000, 1000, width=32))
def test_high_frequencies_are_as_exact_as_low_ones(x):
    """A multiple of pi in float32 would be off by 1e-3 at frequency 2^11."""
    angles = np.pi * (np.float64(np.float32(x)) * 2.0 ** np.arange(12) % 2)
    expected = np.stack([np.sin(angles), np.cos(angles)], axis=-1).ravel()
    np.testing.assert_allclose(features(x, 12), expected, atol=4e-7)


@pytest.mark.parametrize("x", [1e9, -3e20])
def test_far_away_features_stay_bounded(x):
    assert (np.abs(features(x, 32)) <= 1 + 1e-6).all()


@pytest.mark.parametrize("n_frequencies", [0, -1, 33])
def test_number_of_frequencies(n_frequencies):
    config = {"otype": "Frequency", "n_frequencies": n_frequencies}
    with pytest.raises(ConfigError, match=rf"^encoding\.n_frequencies: {n_frequencies} .*1 to 32"):
        create("encoding", config, default="OneBlob", n_dims=2)
