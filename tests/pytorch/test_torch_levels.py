"""Modules of which each sample reads the levels up to one of its own: as numbanet's models."""

import models
import numpy as np
import pytest
from laws import assert_close

import numbanet

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402

N, SHARES = 40, [0.0, 0.25, 0.5, 1.0]


def made(name):
    """A module, the network with its parameters, inputs, gradients of outputs, and levels."""
    model, _ = models.create_lively(name, device="cpu")
    n_input_dims, n_output_dims, config = models.MODELS[name]
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"], device="cpu"
    )
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(np.array(model.network.params)))
    x, dl_dy = models.batch_of(name, N)
    levels = np.random.default_rng(1).choice(SHARES, N).astype(np.float32)
    return module, model.network, x, dl_dy, levels


@pytest.mark.parametrize("name", ["hash", "composite"])
def test_outputs_and_gradients_are_those_of_the_model(name):
    module, network, x, dl_dy, levels = made(name)
    given = torch.from_numpy(x).requires_grad_()
    y, context = network.forward(x, max_level=levels)
    for max_level in (torch.from_numpy(levels), torch.from_numpy(levels)[:, None], list(levels)):
        found = module(given, max_level=max_level)
        assert_close(found.detach().numpy(), y, 1e-5)
    found.backward(torch.from_numpy(dl_dy))
    assert_close(given.grad.numpy(), network.backward(context, dl_dy), 1e-5)
    assert_close(module.params.grad.numpy(), network.gradients, 1e-5)
    with torch.no_grad():
        for level in (0, 0.5, torch.tensor(0.5), 1.0):
            expected = network(x, max_level=float(level))
            assert_close(module(given, max_level=level).numpy(), expected, 1e-5)


def test_loss_and_second_derivatives():
    module, network, x, targets, levels = made("hash")
    value = module.loss(torch.from_numpy(x), torch.from_numpy(targets), "L2", max_level=0.5)
    value.backward()
    y, context = network.forward(x, max_level=0.5)
    assert value.item() == pytest.approx(((np.asarray(y) - targets) ** 2).mean(), rel=1e-5)
    network.backward(context, 2 * (np.asarray(y) - targets) / y.size)
    assert_close(module.params.grad.numpy(), network.gradients, 1e-5)
    config = {**models.HASH, "interpolation": "Smoothstep"}
    encoding = tcnn.Encoding(2, config, dtype=torch.float32, device="cpu")
    model = numbanet.create_encoding(2, config, device="cpu")
    model.params = encoding.params.detach().numpy()
    given = torch.from_numpy(x).requires_grad_()
    _, context = model.forward(x, max_level=levels)
    features = encoding(given, max_level=torch.from_numpy(levels))
    (dl_dx,) = torch.autograd.grad(features.sum(), given, create_graph=True)
    dl_dx.sum().backward()
    ones = np.ones(features.shape, np.float32)
    _, expected = model.double_backward(context, ones, np.ones_like(x))
    assert_close(given.grad.numpy(), expected, 1e-4)
    assert_close(encoding.params.grad.numpy(), model.gradients, 1e-4)


def test_tables_in_few_bits_are_read_as_such():
    config = {**models.HASH, "compression": "Int8"}
    module = tcnn.Encoding(2, config, dtype=torch.float32, device="cpu")
    model = numbanet.create_encoding(2, config, device="cpu")
    model.params = np.random.default_rng(0).normal(size=model.n_params)
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(np.array(model.params)))
        x = np.random.default_rng(1).random((N, 2), np.float32)
        found = module(torch.from_numpy(x), max_level=0.5).numpy()
    assert_close(found, model(x, max_level=0.5), 1e-6)


def test_what_is_no_level_is_refused():
    module, _, x, *_ = made("hash")
    x = torch.from_numpy(x)
    for wrong in (-0.1, float("nan"), 1e9, np.full(N, np.nan), [0.5] * (N - 1) + [-1.0]):
        with pytest.raises(ValueError, match=r"max_level: .* of sample \d+ is not allowed"):
            module(x, max_level=wrong)
    for wrong in ("fine", [0.5], torch.zeros(N + 1), torch.zeros(1, N), {}, torch.zeros(N) * 1j):
        with pytest.raises(ValueError, match="max_level"):
            module(x, max_level=wrong)
    network = tcnn.Network(2, 3, models.mlp("FullyFusedMLP", 16, 1), device="cpu")
    with pytest.raises(TypeError, match="max_level: the module has no grid"):
        network(x, max_level=0.5)


def test_derivatives_are_the_models():
    config = {**models.SMOOTH, "compression": "Int8"}
    module = tcnn.Encoding(2, config, dtype=torch.float32, device="cpu")
    model = numbanet.create_encoding(2, config, device="cpu")
    model.params = np.random.default_rng(0).normal(size=model.n_params)
    x = np.random.default_rng(1).random((N, 2), np.float32)
    levels = np.random.default_rng(2).choice(SHARES, N)
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(np.array(model.params)))
    found = module.derivatives(torch.from_numpy(x), max_level=torch.from_numpy(levels))
    expected = model.derivatives(x, max_level=levels)
    np.testing.assert_array_equal(found.jacobian.detach().numpy(), expected.jacobian)
    found.laplacian.square().sum().backward()
    expected.backward(dl_dlaplacian=2 * expected.laplacian)
    assert_close(module.params.grad.numpy(), model.gradients, 1e-5)
    with pytest.raises(ValueError, match="max_level: -1"):
        module.derivatives(torch.from_numpy(x), max_level=-1)
