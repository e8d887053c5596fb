"""First and second derivatives, through PyTorch's autograd."""

from concurrent.futures import ThreadPoolExecutor

import models
import naive
import numpy as np
import pytest
from laws import assert_close
from models import HASH, MODELS, SMOOTH, make_config, mlp

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

from torch.autograd import gradcheck, gradgradcheck  # noqa: E402
from twin_evaluator import TwinEvaluator  # noqa: E402

import numbanet.torch as tcnn  # noqa: E402
from numbanet.torch import operators, passes  # noqa: E402

TOLERANCE = {
    "first": 2e-4,
    "second": 5e-4,
}  # relative to the largest entry; see tests/test_model.py

# name -> n_input_dims, n_output_dims, config; without "network", the encoding by itself
CASES = {
    "hash grid": (3, None, {"encoding": HASH}),
    "smooth grid": (3, None, {"encoding": SMOOTH}),
    "one blob": (2, None, {"encoding": {"otype": "OneBlob", "n_bins": 4}}),
    "frequency": (2, None, {"encoding": {"otype": "Frequency", "n_frequencies": 2}}),
    "harmonics": (3, None, {"encoding": {"otype": "SphericalHarmonics", "degree": 3}}),
    "identity": (3, None, {"encoding": {"otype": "Identity", "scale": 2.0}}),
    "grid, ReLU": MODELS["hash"],
    "smooth grid, Tanh": MODELS["smooth"],
    "composite, ReLU": MODELS["composite"],
    "network, Softplus": (
        3,
        2,
        make_config(
            {"otype": "Identity"}, mlp("CutlassMLP", 16, 2, "Softplus", "Sigmoid", bias=True)
        ),
    ),
}


def make(name):
    n_input_dims, n_output_dims, config = CASES[name]
    if "network" not in config:
        return tcnn.Encoding(n_input_dims, config["encoding"], device="cpu")
    if config["encoding"]["otype"] == "Identity":
        return tcnn.Network(n_input_dims, n_output_dims, config["network"], device="cpu")
    return tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"], device="cpu"
    )


def arguments_of(name, n, seed=0):
    """Inputs, parameters and a gradient of the outputs, in float64, away from all corners."""
    twin = TwinEvaluator(*CASES[name])
    rng = np.random.default_rng(seed)
    if isinstance(twin.twin, naive.Model):
        params = models.lively_params(twin.twin)
        x = models.inputs_of(twin.twin, n, seed, params)
        n_outputs = twin.twin.mlp.n_output_dims
    else:
        params = rng.normal(size=twin.n_params).astype(np.float32)
        x = rng.uniform(0, 1, (4 * n, CASES[name][0])).astype(np.float32)
        x = x[(twin.twin.distance_to_border(x.astype(np.float64)) > 1e-3).all(axis=1)][:n]
        n_outputs = twin.twin.n_outputs
    dl_dy = rng.normal(size=(n, n_outputs)).astype(np.float32)
    return [torch.from_numpy(each).double().requires_grad_() for each in (x, params, dl_dy)]


# How derivatives are wired up, in float64


@pytest.fixture(params=CASES)
def reference(request, monkeypatch):
    """The name of a case; the passes compute in float64 with its twin."""
    twin = TwinEvaluator(*CASES[request.param])
    for module in (operators, passes):
        monkeypatch.setattr(module, "evaluator_for", lambda description, device, precision: twin)
    return request.param


@pytest.fixture(params=["operators", "functions"])
def evaluate(request):
    """The forward pass, as compiled programs call it and as eager ones do."""
    options = "reference", "float64", True
    if request.param == "operators":
        return lambda x, params: operators.forward(x, params, *options)[0]
    return lambda x, params: passes.Forward.apply(x, params, *options)


def test_first_derivatives_of_the_reference(reference, evaluate):
    x, params, _ = arguments_of(reference, 2)
    assert gradcheck(evaluate, (x, params), fast_mode=True)  # along random directions
    assert gradcheck(lambda x: evaluate(x, params.detach()), x)
    assert gradcheck(lambda params: evaluate(x.detach(), params), params, fast_mode=True)


def test_second_derivatives_of_the_reference(reference, evaluate):
    def input_gradient(x, params, dl_dy):
        return torch.autograd.grad(evaluate(x, params), x, dl_dy, create_graph=True)[0]

    x, params, dl_dy = arguments_of(reference, 2)
    assert gradgradcheck(lambda x: evaluate(x, params.detach()), x, dl_dy)
    # mixed ones, with the parameters
    assert gradcheck(input_gradient, (x, params, dl_dy), fast_mode=True)


# The engines in float32


@pytest.mark.parametrize("name", CASES)
def test_derivatives_match_the_twin(name):
    module, twin = make(name), TwinEvaluator(*CASES[name])
    exact = arguments_of(name, 33)
    x, params, dl_dy = (each.detach().float().requires_grad_() for each in exact)
    module.params = torch.nn.Parameter(params.detach())
    y = module(x)
    (dl_dx,) = torch.autograd.grad(y, x, dl_dy, create_graph=True)
    direction = torch.from_numpy(np.random.default_rng(5).normal(size=x.shape)).float()
    found = torch.autograd.grad(dl_dx, (dl_dy, x, module.params), direction, allow_unused=True)
    expected = twin.double_backward(exact[2], exact[0], exact[1], direction.double(), True)
    wanted = torch.autograd.grad(y, module.params, dl_dy, allow_unused=True)[0]
    first = twin.backward(exact[2], exact[0], exact[1], None, True, True)
    assert_close(dl_dx.detach(), first[0], TOLERANCE["first"])
    if module.params.numel():
        assert_close(wanted, first[1], TOLERANCE["first"])
    for value, exact_value in zip(found, expected, strict=True):
        if exact_value.numel() and exact_value.abs().max() > 0:
            assert_close(value, exact_value, TOLERANCE["second"])


@pytest.mark.parametrize("name", ["smooth grid", "smooth grid, Tanh", "network, Softplus"])
def test_gradcheck_of_the_engines(name):
    """With steps that float32 can resolve; inputs and results are float64, as gradcheck asks."""
    module = make(name)
    x, params, _ = arguments_of(name, 3)
    module.params = torch.nn.Parameter(params.detach().float())
    assert gradcheck(lambda x: module(x).double(), x, eps=1e-3, atol=2e-2, rtol=2e-2)
    assert gradgradcheck(lambda x: module(x).double(), x, eps=1e-3, atol=5e-2, rtol=5e-2)


# What is computed, and when


def lively_hash():
    module = make("grid, ReLU")
    _, params, _ = arguments_of("grid, ReLU", 1)
    module.params = torch.nn.Parameter(params.detach().float())
    return module


@pytest.fixture
def calls(monkeypatch):
    """What the backward operators are asked for."""
    made, plain = [], tcnn.evaluator.Evaluator.backward

    def noted(self, *tensors_and_wanted):
        made.append(tensors_and_wanted[-2:])
        return plain(self, *tensors_and_wanted)

    monkeypatch.setattr(tcnn.evaluator.Evaluator, "backward", noted)
    return made


def test_only_what_is_needed_is_computed(calls):
    module = lively_hash()
    x = torch.rand(20, 2)
    module(x).sum().backward()
    module(x.clone().requires_grad_()).sum().backward()
    module.params.requires_grad_(False)
    module(x.clone().requires_grad_()).sum().backward()
    assert calls == [(False, True), (True, True), (True, False)]
    assert not module(x).requires_grad


def test_several_forwards_before_one_backward():
    module = lively_hash()
    parts = [torch.rand(n, 2) for n in (10, 300, 0, 7)]
    sum(module(part).square().sum() for part in parts).backward()
    together = module.params.grad.clone()
    module.params.grad = None
    module(torch.cat(parts)).square().sum().backward()
    assert_close(together, module.params.grad, 1e-5)


def test_one_graph_can_be_walked_twice():
    module = lively_hash()
    loss = module(torch.rand(20, 2)).square().sum()
    loss.backward(retain_graph=True)
    once = module.params.grad.clone()
    loss.backward()
    assert_close(module.params.grad, 2 * once, 1e-6)


def test_parameters_changed_in_between_are_noticed():
    """As PyTorch's own modules: what the backward pass needs was overwritten."""
    module = lively_hash()
    loss = module(torch.rand(20, 2)).sum()
    with torch.no_grad():
        module.params.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_threads():
    """Forward and backward passes at once give what they give one after the other."""
    modules = [lively_hash() for _ in range(4)]
    inputs = [torch.rand(500, 2, generator=torch.Generator().manual_seed(k)) for k in range(4)]

    def gradient(k):
        modules[k].params.grad = None
        modules[k](inputs[k]).square().sum().backward()
        return modules[k].params.grad.clone()

    expected = [gradient(k) for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for found, one in zip(pool.map(gradient, range(4)), expected, strict=True):
                assert torch.equal(found, one)


def test_the_gradient_of_parameters_is_not_differentiated():
    module = lively_hash()
    x = torch.rand(20, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(x).sum(), module.params, create_graph=True)
    with pytest.raises(RuntimeError, match="gradient of the parameters cannot be differentiated"):
        gradient.square().sum().backward()


def test_third_derivatives_are_refused():
    module = make("network, Softplus")
    x = torch.rand(20, 3, requires_grad=True)
    (first,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives cannot be differentiated once more"):
        second.sum().backward()


def test_an_eikonal_loss_trains_a_grid_with_its_network():
    """What SDF programs do: a loss of the gradient with respect to the inputs."""
    module = tcnn.NetworkWithInputEncoding(
        3, 1, {**SMOOTH, "n_levels": 3}, mlp("CutlassMLP", 16, 1, "Softplus"), device="cpu"
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    torch.manual_seed(0)
    losses = []
    for _ in range(150):
        x = torch.rand(256, 3, requires_grad=True)
        (gradient,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        loss = (gradient.norm(dim=1) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.05 * losses[0]
