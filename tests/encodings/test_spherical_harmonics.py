"""SphericalHarmonics: known numbers, and that they are orthonormal on the sphere."""

import numpy as np
import pytest

import numbanet
from numbanet.encodings.spherical_harmonics import SphericalHarmonics
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)


def features(directions, degree=8):
    """[n, degree^2] of directions [n, 3] with components in [-1, 1]."""
    encoding = SphericalHarmonics(n_dims=3, degree=degree)
    xs = np.asarray((np.asarray(directions) + 1) / 2, np.float32)
    ys = np.full((len(xs), degree**2), 99, np.float32)
    encoding.forward_rows(xs, 0, len(xs), NONE, ys, 0, 0)
    return ys


def test_known_features():
    y = features([(-0.4, 0.2, 0.8)])[0]
    expected = [0.28209479, -0.097720502, 0.39088201, 0.195441, -0.087403874, -0.17480775]
    expected += [0.29016024, 0.3496155, 0.065552906]
    np.testing.assert_allclose(y[:9], expected, atol=2e-7)
    later = {12: 0.059708213, 20: -0.19718426, 30: -0.37379194, 42: -0.39849855}
    later |= {56: -0.26183054, 63: -0.0025163679}
    np.testing.assert_allclose(y[list(later)], list(later.values()), atol=1e-6)


def test_first_polynomials():
    """Also for a direction that is not normalised."""
    x, y, z = 0.5, -1.5, 2.0
    expected = [0.28209479, -0.48860251 * y, 0.48860251 * z, -0.48860251 * x]
    expected += [1.09254843 * x * y, -1.09254843 * y * z, 0.94617470 * z**2 - 0.31539157]
    expected += [-1.09254843 * x * z, 0.54627422 * (x**2 - y**2)]
    expected += [0.59004359 * y * (y**2 - 3 * x**2), 2.89061144 * x * y * z]
    expected += [0.45704580 * y * (1 - 5 * z**2), 0.37317633 * z * (5 * z**2 - 3)]
    expected += [0.45704580 * x * (1 - 5 * z**2), 1.44530572 * z * (x**2 - y**2)]
    expected += [0.59004359 * x * (3 * y**2 - x**2)]
    np.testing.assert_allclose(features([(x, y, z)], 4)[0], expected, rtol=1e-6)


def test_harmonics_are_orthonormal():
    """Gauss-Legendre times equidistant angles integrates polynomials up to degree 15 exactly."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    angles = 2 * np.pi * np.arange(16) / 16
    z, angle = (grid.ravel() for grid in np.meshgrid(nodes, angles))
    weight = np.tile(weights, 16) * 2 * np.pi / 16
    radius = np.sqrt(1 - z**2)
    y = features(np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=-1))
    gram = (y * weight[:, None]).T @ y
    np.testing.assert_allclose(gram, np.eye(64), atol=3e-6)


def test_a_lower_degree_is_the_beginning_of_a_higher_one():
    directions = np.random.default_rng(0).uniform(-2, 2, (20, 3))
    whole = features(directions)
    for degree in (1, 4, 5):
        part = features(directions, degree)
        np.testing.assert_allclose(part, whole[:, : degree**2], rtol=1e-5, atol=1e-5)


def test_padding_comes_first():
    encoding = numbanet.create_encoding(
        3, {"otype": "SphericalHarmonics", "degree": 3}, alignment=16, device="cpu"
    )
    y = encoding([[0.3, 0.6, 0.9]])
    assert y.shape == (1, 16)
    assert (y[0, :7] == 1).all()
    np.testing.assert_allclose(y[0, 7:10], [0.28209479, -0.097720502, 0.39088201], atol=1e-6)


@pytest.mark.parametrize("degree", [0, 9, -1])
def test_degrees_are_limited(degree):
    config = {"otype": "SphericalHarmonics", "degree": degree}
    with pytest.raises(ConfigError, match=rf"^encoding\.degree: {degree} .*1 to 8"):
        create("encoding", config, default="OneBlob", n_dims=3)


@pytest.mark.parametrize("n_dims", [1, 2, 4])
def test_inputs_are_directions(n_dims):
    with pytest.raises(ConfigError, match=rf"^encoding\.n_dims: {n_dims} .*directions"):
        create("encoding", {"otype": "SphericalHarmonics"}, default="OneBlob", n_dims=n_dims)
