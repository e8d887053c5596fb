"""Derivatives by the inputs as tensors: those of numbanet's models, and gradients by autograd."""

import numpy as np
import pytest
from laws import assert_close
from models import make_config, mlp

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet  # noqa: E402
import numbanet.torch as tcnn  # noqa: E402

ENCODING = {"otype": "Frequency", "n_frequencies": 2}
NETWORK = mlp("FullyFusedMLP", 32, 2, "Sine")  # a case of test_derivatives.py, compiled there
N = 33


@pytest.fixture
def module():
    return tcnn.NetworkWithInputEncoding(2, 1, ENCODING, NETWORK, device="cpu")


@pytest.fixture
def model(module):
    """The same with numbanet's own interface."""
    config = make_config(ENCODING, NETWORK)
    found = numbanet.create_from_config(2, 1, config, device="cpu").network
    found.params = module.params.detach().numpy()
    return found


@pytest.fixture
def x():
    return torch.rand(N, 2, generator=torch.Generator().manual_seed(0))


def test_derivatives_and_gradients_are_the_models(module, model, x):
    found, expected = module.derivatives(x), model.derivatives(x)
    for name in ("values", "jacobian", "laplacian"):
        tensor = getattr(found, name)
        assert tensor.dtype is torch.float32
        np.testing.assert_array_equal(tensor.detach().numpy(), getattr(expected, name))
    (found.laplacian.square().mean() + found.jacobian[:, 0, 1].sin().mean()).backward()
    dl_djacobian = np.zeros((N, 1, 2), np.float32)
    dl_djacobian[:, 0, 1] = np.cos(expected.jacobian[:, 0, 1]) / N
    expected.backward(dl_djacobian=dl_djacobian, dl_dlaplacian=2 / N * expected.laplacian)
    assert_close(module.params.grad.numpy(), model.gradients, 1e-5)


def test_jacobians_are_those_of_autograd(module, x):
    found = module.derivatives(x, order=1)
    needing = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(module(needing).sum(), needing)
    assert_close(found.jacobian[:, 0].detach().numpy(), slope.numpy(), 1e-5)


def test_derivatives_of_an_encoding_are_the_models(x):
    module = tcnn.Encoding(2, {"otype": "HashGrid", "n_levels": 2}, device="cpu")
    model = numbanet.create_encoding(2, module.encoding_config, device="cpu")
    found, expected = module.derivatives(x, order=1), model.derivatives(x, order=1)
    np.testing.assert_array_equal(found.jacobian.detach().numpy(), expected.jacobian)
    found.jacobian.square().sum().backward()
    expected.backward(dl_djacobian=2 * expected.jacobian)
    assert_close(module.params.grad.numpy(), model.gradients, 1e-5)


def test_an_empty_batch_and_no_gradients(module):
    found = module.derivatives(torch.zeros(0, 2))
    assert found.jacobian.shape == (0, 1, 2)
    found.laplacian.sum().backward()
    assert not module.params.grad.any()
    with torch.no_grad():
        assert not module.derivatives(torch.zeros(1, 2)).values.requires_grad


def test_what_is_refused(module, x):
    for call, error, message in (
        (lambda: module.derivatives(x.requires_grad_()), ValueError, "third derivatives; detach"),
        (lambda: module.derivatives(x[:, :1]), ValueError, r"x: expected shape \[batch, 2\]"),
        (lambda: module.derivatives(x.detach(), wanted="curl"), ValueError, "'curl' is not known"),
        (lambda: module.derivatives(x.detach()).hessian, AttributeError, "wanted='hessian'"),
    ):
        with pytest.raises(error, match=message):
            call()
    relu = tcnn.Network(2, 1, mlp("FullyFusedMLP", 16, 1), device="cpu")
    with pytest.raises(TypeError, match="activation ReLU has no `third`"):
        relu.derivatives(x.detach())
    gradient = torch.autograd.grad(
        module.derivatives(x.detach()).values.square().sum(), module.params, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient[0].sum().backward()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # PyTorch's, where it resumes
def test_a_compiled_program_leaves_them_out(module, x):
    compiled = torch.compile(lambda x: 2 * module.derivatives(x).laplacian, backend="eager")
    assert torch.equal(compiled(x), 2 * module.derivatives(x).laplacian)
    with pytest.raises(RuntimeError, match="PyTorch cannot trace"):
        torch.func.grad(lambda x: module.derivatives(x).values.sum())(x)
