"""Permutohedral lattices: the published algorithm, sizes, limits; the laws compare the rest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbanet.encodings import Permutohedral
from numbanet.encodings.permutohedral import lattice
from numbanet.registry import ConfigError, create


def published(position, scale):
    """Vertices and weights of Adams, Baek and Davis 2010, section 3.1, for one position.

    A vertex is n + 1 integers that add up to 0 and are the same modulo n + 1.
    """
    n = len(position)
    scaled = scale * position / np.sqrt((np.arange(n) + 1) * (np.arange(n) + 2))
    elevated = np.array([scaled[i:].sum() - (i * scaled[i - 1] if i else 0) for i in range(n + 1)])
    nearest = (n + 1) * np.round(elevated / (n + 1))
    rank = np.argsort(np.argsort(-(elevated - nearest), kind="stable"), kind="stable")
    excess = round(nearest.sum() / (n + 1))
    rank += excess
    nearest[rank > n] -= n + 1
    nearest[rank < 0] += n + 1
    rank = rank % (n + 1)
    order = np.argsort(rank)
    rests = np.append((elevated - nearest)[order] / (n + 1), 0)
    weights = np.empty(n + 1)
    weights[1:] = (rests[:-1] - rests[1:])[:n][::-1]
    weights[0] = 1 + rests[n] - rests[0]
    vertices = [nearest + k - (n + 1) * (rank > n - k) for k in range(n + 1)]
    return vertices, weights


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_vertices_and_weights_are_those_of_the_published_algorithm(n, seed):
    """In other coordinates: the differences to the first one, in units of n + 1, and negated."""
    rng = np.random.default_rng(seed)
    position = rng.uniform(-2, 2, n).astype(np.float32)
    level = lattice.Level(np.float32(3), (np.float32(0),) * n, np.uint32(0), np.uint32(0))
    memory, rests, weights = np.empty(2 * n, np.float32), *np.empty((2, n + 1), np.float32)
    cell = memory.view(np.uint32)
    lattice.locate(n)(level, position, cell, rests[:n])
    lattice.weights(n)(cell, rests[:n], weights)
    found = {}
    for k in range(n + 1):
        vertex = cell[:n].view(np.int32) + (cell[n:] <= k)
        found[tuple(int(c) for c in vertex)] = weights[k]
    expected = {}
    for vertex, weight in zip(*published(position.astype(float), 3.0 * (n + 1)), strict=True):
        place = np.round((vertex[0] - vertex[1:]) / (n + 1)).astype(int)
        expected[tuple(int(c) for c in place)] = weight
    assert abs(weights.sum() - 1) < 1e-5
    for place in found.keys() | expected.keys():  # those that only one has have no weight
        assert abs(found.get(place, 0) - expected.get(place, 0)) < 1e-4


def test_a_level_has_as_many_vertices_as_its_resolution_says():
    """A has the determinant resolution^n, so that volumes are counted in vertices."""
    for n in (1, 2, 5):
        encoding = Permutohedral(n, n_levels=1, base_resolution=4)
        columns = np.empty((n, n), np.float32)
        for d in range(n):
            lattice.to_lattice(n)(
                encoding.levels[0].scale, np.eye(n, dtype=np.float32)[d], columns[d]
            )
        np.testing.assert_allclose(np.linalg.det(columns), 4.0**n, rtol=1e-4)


def test_tables_are_powers_of_two_and_no_larger_than_needed():
    encoding = Permutohedral(3, n_levels=3, log2_hashmap_size=8, base_resolution=2)
    sizes = [int(level.mask) + 1 for level in encoding.levels]
    assert sizes == [64, 128, 256]
    assert encoding.n_params == 2 * sum(sizes)
    assert [int(level.offset) for level in encoding.levels] == [0, 64, 192]


@pytest.mark.parametrize("x", [1e30, -3e38, 2.0**31])
def test_any_input_leads_to_an_entry(x):
    encoding = Permutohedral(2, n_levels=2, log2_hashmap_size=4)
    params, y = np.ones(encoding.n_params, np.float32), np.empty(4, np.float32)
    encoding.forward(np.array([x, -x], np.float32), params, y)
    np.testing.assert_allclose(y, 1, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_levels": 0}, r"n_levels: 0 is not allowed"),
        ({"n_features_per_level": 3}, r"n_features_per_level: 3 is not allowed; use 1, 2, 4 or 8"),
        ({"per_level_scale": 0.5}, r"per_level_scale: 0.5 is not allowed; use a number from 1"),
        ({"per_level_scale": 3.0}, r"per_level_scale: 3.0 is not allowed; use less, or fewer"),
        ({"log2_hashmap_size": 32}, r"log2_hashmap_size: 32 is not allowed"),
        ({"log2_hashmap_size": 31}, r"n_levels: 16 is not allowed; use fewer, or smaller ones"),
    ],
)
def test_options_that_make_no_lattice(options, message):
    with pytest.raises(ConfigError, match=rf"^encoding\.{message}"):
        create("encoding", {"otype": "Permutohedral", **options}, default="none", n_dims=4)


def test_dimensions_have_a_limit():
    with pytest.raises(ValueError, match=r"^n_dims: 17 is not allowed; use 1 to 16"):
        Permutohedral(17)
