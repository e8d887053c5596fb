"""TriangleWave: known numbers, and the corners of the waves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.encodings.triangle_wave import TriangleWave
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)


def features(x, n_frequencies):
    y = np.full(n_frequencies, 99, np.float32)
    encoding = TriangleWave(n_dims=1, n_frequencies=n_frequencies)
    encoding.forward(np.array([x], np.float32), NONE, y)
    return y


def test_known_features():
    expected = [0.4, -0.8, 0.6, 0.8, -0.6, 0.8]
    np.testing.assert_allclose(features(0.3, 6), expected, atol=4e-6)


@given(x=st.floats(-1000, 1000, width=32))
def test_high_frequencies_are_as_exact_as_low_ones(x):
    k = np.arange(12)
    periods = np.float64(np.float32(x)) * 2.0 ** (k - 1) % 1 + 0.25 * k
    expected = 4 * np.abs(periods % 1 - 0.5) - 1
    np.testing.assert_allclose(features(x, 12), expected, atol=1e-6)


@pytest.mark.parametrize("x", [1e9, -3e30])
def test_far_away_features_stay_bounded(x):
    assert (np.abs(features(x, 32)) <= 1 + 1e-6).all()


@pytest.mark.parametrize(
    ("x", "slopes"), [(0.0, [-2, -4, 8, 16]), (1.0, [2, -4, 8, 16]), (0.5, [-2, 4, 8, 16])]
)
def test_the_slope_at_a_corner_is_the_one_to_the_right(x, slopes):
    encoding = TriangleWave(n_dims=1, n_frequencies=4)
    found = []
    for dl_dy in np.eye(4, dtype=np.float32):
        dl_dx = np.full(1, 99, np.float32)
        encoding.backward_input(np.array([x], np.float32), NONE, dl_dy, dl_dx)
        found.append(dl_dx[0])
    assert found == slopes


@pytest.mark.parametrize("n_frequencies", [0, -1, 33])
def test_number_of_frequencies(n_frequencies):
    config = {"otype": "TriangleWave", "n_frequencies": n_frequencies}
    with pytest.raises(ConfigError, match=rf"^encoding\.n_frequencies: {n_frequencies} .*1 to 32"):
        create("encoding", config, default="OneBlob", n_dims=2)
