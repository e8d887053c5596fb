"""Inputs that are not finite: their rows of the outputs are NaN, all others as they were."""

import numpy as np
import pytest

import numbanet
from emulator.device import shared_device

GRID = {
    "otype": "HashGrid",
    "n_levels": 4,
    "log2_hashmap_size": 5,
    "base_resolution": 3,
    "per_level_scale": 1.5,
}
NESTED = [
    {"otype": "Empty", "n_dims_to_encode": 1},
    {"otype": "Frequency", "n_dims_to_encode": 2},
    {**GRID, "n_dims_to_encode": 2},
]
ENCODINGS = {
    "Identity": {"otype": "Identity"},
    "OneBlob": {"otype": "OneBlob"},
    "Frequency": {"otype": "Frequency", "n_frequencies": 3},
    "TriangleWave": {"otype": "TriangleWave", "n_frequencies": 3},
    "Grid": GRID,
    "Nearest": {**GRID, "interpolation": "Nearest", "n_features_per_level": 1},
    "SphericalHarmonics": {"otype": "SphericalHarmonics"},
    "NRC": {"otype": "NRC", "n_frequencies": 3},
    "Composite": {"otype": "Composite", "nested": NESTED},
}
N_DIMS = {"SphericalHarmonics": 3, "NRC": 9, "Composite": 5}
BAD = np.float32([np.nan, np.inf, -np.inf])
PLACES = {  # where models run: options of creation
    "cpu": lambda: {"device": "cpu"},
    "fused": lambda: {"device": shared_device(), "precision": "float16"},
    "chain": lambda: {"device": shared_device(), "precision": "float16", "fused": False},
}
encodings = pytest.mark.parametrize("name", ENCODINGS)
places = pytest.mark.parametrize("place", PLACES)


def inputs_of(name):
    """Inputs, the same with numbers that are not finite, and where these are."""
    rng = np.random.default_rng(5)
    good = rng.random((40, N_DIMS.get(name, 2))).astype(np.float32)
    bad, rows = good.copy(), np.arange(1, 40, 3)
    bad[rows, rng.integers(0, good.shape[1], len(rows))] = rng.choice(BAD, len(rows))
    bad[1] = np.nan
    return good, bad, np.isin(np.arange(40), rows)


def check_rows(model, name):
    good, bad, spoiled = inputs_of(name)
    expected, found = (model.target.to_host(model.inference(x)) for x in (good, bad))
    assert np.isfinite(expected).all()
    assert np.isnan(found[spoiled]).all()
    np.testing.assert_array_equal(found[~spoiled], expected[~spoiled])


@places
@encodings
def test_networks(name, place):
    network = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1}
    create = numbanet.create_network_with_input_encoding
    model = create(N_DIMS.get(name, 2), 3, ENCODINGS[name], network, **PLACES[place]())
    check_rows(model, name)


@pytest.mark.parametrize("place", ["cpu", "chain"])
@encodings
def test_encodings(name, place):
    options = {key: value for key, value in PLACES[place]().items() if key != "fused"}
    model = numbanet.create_encoding(N_DIMS.get(name, 2), ENCODINGS[name], **options)
    check_rows(model, name)


@pytest.mark.parametrize("place", ["fused", "chain"])
@pytest.mark.parametrize("activation", numbanet.registry.registered("activation"))
def test_activations(activation, place):
    network = {
        "otype": "FullyFusedMLP",
        "activation": activation,
        "output_activation": activation,
        "n_neurons": 16,
        "n_hidden_layers": 2,
    }
    create = numbanet.create_network_with_input_encoding
    model = create(2, 3, {"otype": "OneBlob", "n_bins": 8}, network, **PLACES[place]())
    check_rows(model, "OneBlob")
