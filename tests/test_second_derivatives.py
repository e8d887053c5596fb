"""Second derivatives of whole models on the CPU, against the float64 twin."""

import laws
import models
import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from laws import assert_close
from models import MODELS, make_config, mlp

import numbanet
from numbanet.cpu import training_plan

# Largest error, relative to the largest expected entry: layers and slopes multiply it.
TOLERANCE = 5e-4


def batch(twin, params, n, seed=0):
    """Inputs, a gradient of the outputs, and one of the gradient of the inputs."""
    rng = np.random.default_rng(seed)
    x = models.inputs_of(twin, n, seed, params)
    dl_dy, dl_ddx = rng.normal(size=(n, twin.mlp.n_output_dims)), rng.normal(size=x.shape)
    return x, dl_dy.astype(np.float32), dl_ddx.astype(np.float32)


def check(network, twin, n, seed=0):
    params = network.params
    x, dl_dy, dl_ddx = batch(twin, params, n, seed)
    _, context = network.forward(x)
    found = network.double_backward(context, dl_dy, dl_ddx)
    expected = twin.double_backward(x, params, dl_dy.astype(np.float64), dl_ddx.astype(np.float64))
    assert_close(found[0], expected[0], TOLERANCE)
    assert_close(found[1], expected[1], TOLERANCE)
    n_network = twin.mlp.n_params
    for part in (slice(None, n_network), slice(n_network, None)):
        assert_close(network.gradients[part], expected[2][part], TOLERANCE)
    return found


# With the networks below, each activation occurs inside and at the output.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"one_blob", "wide", "usual"}))
def test_second_derivatives_match_the_twin(name):
    model, twin = models.create_lively(name)
    for n in (0, 1, 33, 257):
        check(model.network, twin, n, seed=n)


@pytest.mark.parametrize(
    "more", [{}, {"activation": "Sigmoid", "output_activation": "Softplus"}], ids=str
)
@pytest.mark.parametrize(("otype", "config", "sizes"), laws.examples("network"), ids=str)
def test_second_derivatives_of_each_network(otype, config, sizes, more):
    config = {**config, **more}
    n_input_dims, n_output_dims = sizes["n_input_dims"] - 3, sizes["n_output_dims"]
    network = numbanet.create_network(
        n_input_dims, n_output_dims, {"otype": otype, **config}, device="cpu"
    )
    whole = {"encoding": {"otype": "Identity"}, "network": config}
    for n in (1, 65):
        check(network, naive.Model(n_input_dims, n_output_dims, whole), n)


@settings(max_examples=3)  # each compiles several kernels
@given(**models.any_model({"otype": "Frequency", "n_frequencies": 2}))
def test_second_derivatives_of_any_model(n_input_dims, n_output_dims, encoding, network, n):
    config = make_config(encoding, network)
    model = numbanet.create_from_config(n_input_dims, n_output_dims, config, device="cpu")
    twin = naive.Model(n_input_dims, n_output_dims, config)
    model.network.params = 0.5 * models.lively_params(twin)
    check(model.network, twin, n)


def test_slabs_and_threads(monkeypatch):
    """Slabs add up; the number of threads changes no bit."""
    model, twin = models.create_lively("smooth")
    network = model.network
    whole = check(network, twin, 300)
    gradients = network.gradients.copy()
    before = numba.get_num_threads()
    try:
        for n_threads in (1, before):
            numba.set_num_threads(n_threads)
            found = check(network, twin, 300)
            np.testing.assert_array_equal(found[1], whole[1])
            np.testing.assert_array_equal(network.gradients, gradients)
    finally:
        numba.set_num_threads(before)
    monkeypatch.setattr(training_plan, "SLAB_FLOATS", 128 * twin.encoding.n_outputs)
    found = check(network, twin, 300)
    np.testing.assert_array_equal(found[0], whole[0])
    np.testing.assert_array_equal(found[1], whole[1])
    assert_close(network.gradients, gradients, 1e-5)


def test_gradient_modes():
    model, twin = models.create_lively("smooth")
    network = model.network
    x, *rest = batch(twin, network.params, 33)
    _, context = network.forward(x)
    network.double_backward(context, *rest)
    once = network.gradients.copy()
    network.double_backward(context, *rest, gradient_mode="ignore")
    np.testing.assert_array_equal(network.gradients, once)
    network.double_backward(context, *rest, gradient_mode="accumulate")
    assert_close(network.gradients, 2 * once, 1e-6)
    assert np.abs(once).max() > 0
    for wrong in ({"gradient_mode": "add"}, {"dl_dy": rest[0][:-1]}, {"dl_ddl_dx": x[:, :1]}):
        arguments = {"dl_dy": rest[0], "dl_ddl_dx": rest[1], **wrong}
        with pytest.raises(ValueError, match=next(iter(wrong))):
            network.double_backward(context, **arguments)
    assert_close(network.gradients, 2 * once, 1e-6)


def test_the_eikonal_loss_teaches_a_distance():
    """All that is known: the function is 0 on a circle, and its gradient has length 1 everywhere.

    Gropp et al. 2020, Implicit Geometric Regularization for Learning Shapes.
    """
    config = make_config({"otype": "Identity"}, mlp("CutlassMLP", 16, 2, "Softplus"))
    model = numbanet.create_from_config(2, 1, config, device="cpu")
    network, rng, losses = model.network, np.random.default_rng(0), []
    radius, ones, zeros = 0.3, np.ones((256, 1)), np.zeros((256, 1))
    for _ in range(600):
        _, context = network.forward(rng.random((256, 2)))
        gradient = network.backward(context, ones, gradient_mode="ignore")
        length = np.linalg.norm(gradient, axis=1, keepdims=True)
        losses.append(np.mean((length - 1) ** 2))
        dl_dgradient = 2 * (length - 1) * gradient / length / len(gradient)
        network.double_backward(context, ones, 0.1 * dl_dgradient)
        angle = rng.uniform(0, 2 * np.pi, (256, 1))
        circle = 0.5 + radius * np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        model.trainer.training_step(circle, zeros, gradient_mode="accumulate")
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
    x = rng.random((1000, 2))
    distance = np.linalg.norm(x - 0.5, axis=1) - radius
    error = np.mean(np.abs(network(x)[:, 0] - distance))
    assert error < 0.3 * np.mean(np.abs(distance))
