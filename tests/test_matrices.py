"""Weights as plain matrices: evaluated outside they give what the network gives."""

import math

import hypothesis.extra.numpy as numpy_strategies
import models
import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanet

# Padding of 0 (hash), of 1 (one_blob, identity), a single matrix (linear), no padding (wide).
NAMES = ["hash", "one_blob", "identity", "linear", "wide"]
SHAPES = {
    "hash": [(16, 8), (16, 16), (3, 16)],
    "one_blob": [(33, 16), (1, 33)],
    "identity": [(100, 16), (100, 100), (17, 100)],
    "linear": [(2, 16)],
    "wide": [(128, 32), (16, 128)],
}


def evaluate(name, network, matrices, x):
    """What a user would do outside: features, padding that is not 0, matrices, activations."""
    twin = naive.Model(*models.MODELS[name])
    _, table = twin.split(network.params.astype(np.float64))
    y = twin.encoding.forward(x.astype(np.float64), table)
    y = y[:, : matrices[0].shape[1]]
    config = models.MODELS[name][2]["network"]
    for matrix in matrices[:-1]:
        y = naive.ACTIVATIONS[config["activation"]][0](y @ matrix.T)
    return naive.ACTIVATIONS[config["output_activation"]][0](y @ matrices[-1].T)


@pytest.mark.parametrize("name", NAMES)
def test_shapes(name):
    matrices = numbanet.to_matrices(models.create(name).network)
    assert [matrix.shape for matrix in matrices] == SHAPES[name]
    assert all(matrix.dtype == np.float32 and matrix.flags.c_contiguous for matrix in matrices)


@pytest.mark.parametrize("name", NAMES)
def test_matrices_evaluate_to_what_the_network_does(name):
    model, _ = models.create_lively(name)
    x, _ = models.batch_of(name, 50)
    outputs = evaluate(name, model.network, numbanet.to_matrices(model.network), x)
    np.testing.assert_allclose(model.network(x), outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_another_model_evaluates_alike(name):
    """What is cut, random in each of the two, is without effect."""
    first, second = models.create(name), models.create(name, seed=99)
    x, _ = models.batch_of(name, 50)
    n_matrix_params = first.network.network.n_params
    second.network.params[n_matrix_params:] = first.network.params[n_matrix_params:]
    numbanet.from_matrices(second.network, numbanet.to_matrices(first.network))
    np.testing.assert_array_equal(second.network(x), first.network(x))


@pytest.mark.parametrize("name", NAMES)
def test_giving_back_changes_no_bit(name):
    network = models.create(name).network
    before = network.params.copy()
    numbanet.from_matrices(network, numbanet.to_matrices(network))
    assert network.params.tobytes() == before.tobytes()


@given(st.data(), st.sampled_from(NAMES))
def test_round_trip_of_any_numbers(data, name):
    network = models.create(name).network
    kept = network.params.copy()
    matrices = [
        data.draw(
            numpy_strategies.arrays(
                np.float32,
                shape,
                elements=st.floats(width=32, allow_nan=False),
                fill=st.floats(width=32, allow_nan=False),
            )
        )
        for shape in SHAPES[name]
    ]
    numbanet.from_matrices(network, matrices)
    for given_one, found in zip(matrices, numbanet.to_matrices(network), strict=True):
        assert given_one.tobytes() == found.tobytes()
    n_changed = np.count_nonzero(network.params.view(np.int32) != kept.view(np.int32))
    assert n_changed <= sum(map(math.prod, SHAPES[name]))
    n_matrix_params = network.network.n_params
    np.testing.assert_array_equal(network.params[n_matrix_params:], kept[n_matrix_params:])


def test_matrices_are_copies():
    network = models.create("hash").network
    before = network.params.copy()
    for matrix in numbanet.to_matrices(network):
        matrix[:] = 7
    np.testing.assert_array_equal(network.params, before)


def test_other_params_than_the_models_own():
    network = models.create("hash").network
    params = np.arange(network.n_params, dtype=np.float32)
    first, *_, last = numbanet.to_matrices(network, params)
    np.testing.assert_array_equal(first[1], np.arange(16, 24))  # 8 features, padded to 16
    np.testing.assert_array_equal(last[2], 16 * 16 + 16 * 16 + 2 * 16 + np.arange(16))
    with pytest.raises(ValueError, match="params"):
        numbanet.to_matrices(network, params[:-1])


def test_padding_before_the_features():
    """An encoding that pads in front: its columns are the last ones."""
    network = models.create("hash").network

    class Padded:
        n_outputs = network.encoding.n_outputs
        padding_value = 0.0
        padding_first = True

    whole = network.named_parameters()["network.0"]
    network.encoding = Padded()
    np.testing.assert_array_equal(numbanet.to_matrices(network)[0], whole[:, 8:])


def test_columns_of_ones_are_biases():
    """Identity of 3 dimensions is padded with 13 ones; their columns add up to the biases."""
    network = numbanet.create_network(3, 2, {"otype": "MLP", "n_hidden_layers": 0}, device="cpu")
    (matrix,) = numbanet.to_matrices(network)
    x = np.random.default_rng(0).random((20, 3))
    outputs = x @ matrix[:, :3].T + matrix[:, 3:].sum(axis=1)
    np.testing.assert_allclose(network(x), outputs, rtol=1e-5, atol=1e-6)


def test_matrices_that_do_not_fit_change_nothing():
    network = models.create("hash").network
    before = network.params.copy()
    good = numbanet.to_matrices(network)
    for bad in (good[:-1], [*good, good[0]], [good[1], *good[1:]], [*good[:-1], good[-1][:2]], []):
        with pytest.raises(ValueError, match="matrices"):
            numbanet.from_matrices(network, [matrix + 1 for matrix in bad])
    with pytest.raises(TypeError, match=r"matrices\[2\]"):
        numbanet.from_matrices(network, [good[0] + 1, good[1], good[2].astype(complex)])
    np.testing.assert_array_equal(network.params, before)


def test_only_networks_have_matrices():
    encoding = numbanet.create_encoding(2, models.HASH, device="cpu")
    for model in (encoding, models.create("hash")):
        with pytest.raises(TypeError, match="network"):
            numbanet.to_matrices(model)
        with pytest.raises(TypeError, match="network"):
            numbanet.from_matrices(model, [])
