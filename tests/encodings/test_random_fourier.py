"""RandomFourier: its frequencies, and what a snapshot has of them; the laws compare it."""

import models
import numpy as np
import pytest

import numbanet
from numbanet.encodings import RandomFourier
from numbanet.registry import ConfigError, create, to_config

NONE = np.zeros(0, np.float32)


def features(encoding, x):
    y = np.empty(encoding.n_outputs, np.float32)
    encoding.forward(np.array(x, np.float32), NONE, y)
    return y


def test_known_features():
    encoding = RandomFourier(1, frequencies=((0.5,), (2.0,)))
    expected = [np.sin(0.3 * np.pi), np.cos(0.3 * np.pi), np.sin(1.2 * np.pi), np.cos(1.2 * np.pi)]
    np.testing.assert_allclose(features(encoding, [0.3]), expected, atol=1e-6)


def test_frequencies_are_normal_numbers_of_the_scale():
    numbers = np.array(RandomFourier(4, n_features=2048, scale=3.0).frequencies)
    assert abs(numbers.mean()) < 0.2
    assert abs(numbers.std() - 3) < 0.1
    np.testing.assert_allclose(np.quantile(numbers, [0.16, 0.84]), [-3, 3], atol=0.25)
    other = RandomFourier(4, n_features=2048, scale=3.0, seed=1).frequencies
    assert (numbers != other).mean() > 0.99


def test_products_of_features_are_a_gaussian_kernel():
    """Rahimi and Recht 2007: of width 1 / (2 pi scale)."""
    encoding, x = RandomFourier(2, n_features=2048, scale=0.5), np.array([0.3, 0.6])
    for distance in (0.0, 0.1, 0.4):
        z = x + distance * np.array([0.6, 0.8])
        found = features(encoding, x) @ features(encoding, z) / 1024
        assert abs(found - np.exp(-((np.pi * distance) ** 2) / 2)) < 0.05


@pytest.mark.parametrize("x", [[1e30, -1e30], [3e38, 3e38], [-3.4e38, 0.0], [12345.678, -0.5]])
def test_features_of_any_input_are_bounded(x):
    assert (np.abs(features(RandomFourier(2, scale=100.0), x)) < 1.001).all()


def test_a_config_has_the_frequencies():
    encoding = RandomFourier(3, n_features=4)
    config = to_config(encoding)
    assert np.array(config["frequencies"]).shape == (2, 3)
    given = {"otype": "RandomFourier", "frequencies": config["frequencies"]}
    assert create("encoding", given, default="none", n_dims=3) == encoding


def test_a_snapshot_has_the_frequencies(tmp_path, monkeypatch):
    """Also where the draws of another machine would be others."""
    network = models.mlp("FullyFusedMLP", 16, 1)
    config = {"encoding": {"otype": "RandomFourier", "n_features": 16}, "network": network}
    model = numbanet.create_from_config(2, 1, config, device="cpu")
    model.save(tmp_path / "snapshot")
    monkeypatch.setattr(RandomFourier, "_drawn", None)
    x = np.random.default_rng(0).random((5, 2))
    loaded = numbanet.load(tmp_path / "snapshot", device="cpu")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_features": 3}, r"n_features: 3 is not allowed; use an even number of features, 2 to"),
        ({"n_features": 0}, r"n_features: 0 is not allowed"),
        ({"n_features": 8194}, r"n_features: 8194 is not allowed; .*2 to 8192 for 2 inputs"),
        ({"scale": 0.0}, r"scale: 0.0 is not allowed"),
        ({"seed": -1}, r"seed: -1 is not allowed"),
        ({"frequencies": [[1.0]]}, r"frequencies\[0\]: expected 2 numbers"),
        ({"frequencies": [[1.0, float("nan")]]}, r"frequencies\[0\]: expected 2 numbers"),
        ({"frequencies": [[1.0, 1e30]]}, r"frequencies\[0\]: expected 2 numbers"),
        ({"frequencies": []}, r"frequencies: expected a list of lists of 2, got \[\]"),
        ({"frequencies": 3}, r"frequencies: expected a list of lists of 2, got 3"),
        (
            {"frequencies": [[1.0, 2.0]], "n_features": 4},
            r"n_features: 4 is not allowed; use two for each of the 1 frequencies",
        ),
    ],
)
def test_options_that_make_no_frequencies(options, message):
    with pytest.raises(ConfigError, match=rf"^encoding\.{message}"):
        create("encoding", {"otype": "RandomFourier", **options}, default="none", n_dims=2)
