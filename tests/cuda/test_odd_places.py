"""Grids behind an odd number of parameters: laid out as in tiny-cuda-nn, without a gap."""

import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet
from emulator.device import EmulatedDevice, shared_device

TILED = {
    "otype": "TiledGrid",
    "n_levels": 1,
    "n_features_per_level": 1,
    "base_resolution": 3,
    "n_dims_to_encode": 3,
}
HASH = {
    "otype": "HashGrid",
    "n_levels": 2,
    "n_features_per_level": 2,
    "log2_hashmap_size": 4,
    "base_resolution": 3,
    "n_dims_to_encode": 2,
    "dims_to_encode_begin": 0,
}
SINGLE = {**HASH, "n_features_per_level": 1, "base_resolution": 2}
INNER = {
    "otype": "Composite",
    "nested": [SINGLE, {**HASH, "interpolation": "Smoothstep"}],
    "n_dims_to_encode": 2,
    "dims_to_encode_begin": 1,
}
ENCODING = {"otype": "Composite", "nested": [{**TILED, "dims_to_encode_begin": 0}, HASH, INNER]}
NETWORK = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1, "activation": "Tanh"}
X = np.random.default_rng(0).random((70, 3), np.float32)
PLACES = {
    "Hopper": (shared_device, "float16", None),
    "float32": (shared_device, "float32", None),
    "Turing": (lambda: EmulatedDevice((7, 5)), "bfloat16", None),
}


def results(**options):
    """Outputs, gradients of the parameters and of the inputs."""
    create = numbanet.create_network_with_input_encoding
    model = create(3, 2, ENCODING, NETWORK, **options)
    to_host = model.target.to_host
    params = np.random.default_rng(1).normal(size=model.n_params).astype(np.float32) / 4
    model.params = params
    outputs, context = model.forward(X)
    dl_dy = np.cos(np.arange(140, dtype=np.float32)).reshape(70, 2)
    dl_dx = model.backward(context, dl_dy)
    found = outputs, model.gradients, dl_dx
    return [np.array(to_host(array)) for array in found], model, params


def test_the_layout_has_no_gaps():
    """Each grid makes of its slice what it makes by itself."""
    _, model, params = results(device="cpu")
    first = model.network.n_params
    assert [nested.encoding.n_params for nested in model.encoding.nested][:2] == [27, 64]
    whole = numbanet.create_encoding(3, ENCODING, device="cpu")
    features, place, column = whole.inference(X, params[first:]), first, 0
    flat = [ENCODING["nested"][0], HASH, *INNER["nested"]]
    for config, begin in zip(flat, (0, 0, 1, 1), strict=True):
        n_dims = config["n_dims_to_encode"]
        options = {k: v for k, v in config.items() if "dims_to_encode" not in k}
        alone = numbanet.create_encoding(n_dims, options, device="cpu")
        mine = params[place : place + alone.n_params]
        expected = alone.inference(np.ascontiguousarray(X[:, begin : begin + n_dims]), mine)
        column += -column % alone.encoding.required_output_alignment
        np.testing.assert_array_equal(features[:, column : column + expected.shape[1]], expected)
        place, column = place + alone.n_params, column + expected.shape[1]
    assert place == model.n_params


@pytest.mark.parametrize("place", PLACES)
def test_a_gpu_computes_what_the_cpu_does(place):
    make, precision, fused = PLACES[place]
    found, _, _ = results(device=make(), precision=precision, fused=fused)
    expected, _, _ = results(device="cpu")
    tolerance = {"float32": 1e-5, "float16": 1e-2, "bfloat16": 6e-2}[precision]
    for actual, wanted in zip(found, expected, strict=True):
        assert_close(actual, wanted, tolerance)
