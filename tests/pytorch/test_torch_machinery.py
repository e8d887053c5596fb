"""The modules within what else PyTorch offers."""

import json
import subprocess
import sys

import models
import naive
import numpy as np
import pytest
from laws import assert_close
from models import HASH, MODELS, SMOOTH, mlp

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import data_parallel  # noqa: E402

import numbanet.torch as tcnn  # noqa: E402


@pytest.fixture
def module():
    twin, module = naive.Model(*MODELS["hash"]), data_parallel.make()
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(models.lively_params(twin)))
    return module


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(module, mode):
    x = torch.rand(33, 2)
    expected = module(x)
    with mode():
        y = module(x)
        nested = module(y[:, :2])  # inputs that were made within
    assert not y.requires_grad
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    torch.testing.assert_close(nested, module(expected[:, :2]), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_changes_neither_values_nor_types(module, dtype):
    linear = torch.nn.Linear(3, 1)
    x = torch.rand(33, 2)
    expected = module(x)
    with torch.autocast("cpu", dtype=dtype):
        y = module(x)
        head = linear(y)
        again = module(head.expand(33, 2))  # of the type that autocast has made
    assert head.dtype == dtype
    assert y.dtype == again.dtype == torch.float32
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    (head.float().sum() + again.sum()).backward()
    assert module.params.grad.abs().max() > 0
    assert linear.weight.grad.abs().max() > 0


def test_hooks_see_and_change_gradients(module):
    seen = []
    x = torch.rand(33, 2, requires_grad=True)
    module(x).sum().backward()
    expected = x.grad.clone(), module.params.grad.clone()
    x.grad = module.params.grad = None
    module.register_forward_hook(lambda module, inputs, y: seen.append(y.shape))
    module.register_full_backward_hook(lambda module, dl_dx, dl_dy: (dl_dx[0] / 128,))
    module.params.register_hook(lambda gradient: gradient * 2)
    module(x).sum().backward()
    module.params.grad /= 8.0
    assert seen == [(33, 3)]
    torch.testing.assert_close(x.grad, expected[0] / 128)
    torch.testing.assert_close(module.params.grad, expected[1] / 4)


def test_checkpointing(module):
    from torch.utils.checkpoint import checkpoint

    x = torch.rand(33, 2)
    module(x).square().sum().backward()
    expected, module.params.grad = module.params.grad, None
    checkpoint(module, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(module.params.grad, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("optimizer", "lr"),
    [(torch.optim.Adam, 1e-2), (torch.optim.AdamW, 1e-2), (torch.optim.SGD, 0.1)],
)
def test_optimizers_learn(module, optimizer, lr):
    made = optimizer(module.parameters(), lr=lr)
    x = torch.rand(256, 2, generator=torch.Generator().manual_seed(0))
    targets = torch.stack([torch.sin(6 * x[:, 0]), x[:, 0] * x[:, 1], x[:, 1]], dim=1)
    losses = []
    for _ in range(60):
        made.zero_grad()
        loss = (module(x) - targets).square().mean()
        loss.backward()
        made.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_compiler_does_not_break_the_graph(module, backend):
    def step(x):
        return (module(2 * x) + 1).square().sum(dim=1)

    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=True)
    for n in (33, 7):
        x = torch.rand(n, 2)
        plain = [x.clone().requires_grad_() for _ in range(2)]
        module.params.grad = None
        expected = step(plain[0])
        expected.sum().backward()
        wanted, module.params.grad = module.params.grad, None
        y = compiled(plain[1])
        y.sum().backward()
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(plain[1].grad, plain[0].grad)
        torch.testing.assert_close(module.params.grad, wanted)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("loss", ["RelativeL2", json.dumps({"otype": "Huber", "delta": 0.1})])
def test_encodings_and_losses_compile_too(module, loss):
    """A loss with options is given as text then."""
    encoding = tcnn.Encoding(2, HASH, dtype=torch.float16, device="cpu")

    def step(x, targets):
        return module.loss(x, targets, loss) + encoding(x).float().sum()

    x, targets = torch.rand(33, 2), torch.rand(33, 3)
    expected = step(x, targets)
    expected.backward()
    wanted = [each.params.grad for each in (module, encoding)]
    module.params.grad = encoding.params.grad = None
    value = torch.compile(step, fullgraph=True, backend="aot_eager")(x, targets)
    value.backward()
    torch.testing.assert_close(value, expected)
    for each, gradient in zip((module, encoding), wanted, strict=True):
        torch.testing.assert_close(each.params.grad, gradient)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("has_network", [False, True])
def test_operators_are_what_pytorch_expects(has_network, transposed):
    """Schema, fake results, autograd and dynamic shapes, as PyTorch itself checks them."""
    n_input_dims, n_output_dims, config = MODELS["smooth"]
    if has_network:
        module = tcnn.NetworkWithInputEncoding(
            n_input_dims, n_output_dims, config["encoding"], config["network"], device="cpu"
        )
    else:
        module = tcnn.Encoding(n_input_dims, config["encoding"], device="cpu")
    model = module.native_tcnn_module.description, "float32"
    params = torch.rand(module.params.shape).requires_grad_()
    x, dl_dy = (
        (torch.rand(n, 9).T if transposed else torch.rand(9, n)).requires_grad_()
        for n in (module.n_input_dims, module.n_output_dims)
    )
    kept = tcnn.operators.forward(x, params, *model, True)[1]
    calls = [
        (tcnn.operators.forward, (x, params, *model, True)),
        (tcnn.operators.forward, (x, params, *model, False)),
        (tcnn.operators.backward, (dl_dy, x, params, kept, *model, True, False)),
        (tcnn.operators.double_backward, (dl_dy, x, params, x.detach(), *model, True)),
    ]
    if has_network:
        loss = (x, params, dl_dy.detach(), None, *model, "L2", True, True)
        calls.append((tcnn.operators.loss, loss))
    for operator, arguments in calls:
        checks = ["test_schema", "test_faketensor"]
        if operator is tcnn.operators.forward:
            checks += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
        torch.library.opcheck(operator, arguments, test_utils=checks)


@pytest.mark.parametrize("name", ["hash", "one_blob"])
@pytest.mark.parametrize("n", [0, 1, 257])
def test_the_backward_pass_reads_kept_features(name, n):
    """What it computes is the same without them, and not the same with others."""
    twin = naive.Model(*MODELS[name])
    n_input_dims, n_output_dims, config = MODELS[name]
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"]
    )
    model = module.native_tcnn_module.description, "float32"
    params = torch.from_numpy(models.lively_params(twin))
    x, dl_dy = torch.rand(n, n_input_dims), torch.rand(n, n_output_dims)
    y, kept = tcnn.operators.forward(x, params, *model, True)
    assert kept.shape == (n, twin.encoding.n_outputs)
    without, nothing = tcnn.operators.forward(x, params, *model, False)
    assert nothing.numel() == 0
    torch.testing.assert_close(y, without, rtol=0, atol=0)
    found = tcnn.operators.backward(dl_dy, x, params, kept, *model, True, True)
    anew = tcnn.operators.backward(dl_dy, x, params, nothing, *model, True, True)
    torch.testing.assert_close(found, anew, rtol=1e-4, atol=1e-5)
    assert n == 0 or anew[1].abs().max() > 0
    _, of_others = tcnn.operators.backward(dl_dy, x, params, 2 * kept, *model, True, True)
    first, second = (each[: twin.mlp.n_params] for each in (found[1], of_others))
    assert n == 0 or (first - second).norm() > 0.1 * first.norm()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit itself
def test_traced_modules_train(module):
    """The trace holds the operator, for batches of any size."""
    traced = torch.jit.trace(module, torch.rand(3, 2))
    x = torch.rand(33, 2, requires_grad=True)
    found, wanted = (
        (y, *torch.autograd.grad(y.square().sum(), (x, module.params)))
        for y in (traced(x), module(x))
    )
    torch.testing.assert_close(found, wanted)
    assert wanted[2].abs().max() > 0


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # of PyTorch 2.11
def test_eager_calls_are_no_operators(module):
    """Which cost the host more than a small kernel takes."""
    x = torch.rand(33, 2, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (dl_dx,) = torch.autograd.grad(module(x).sum(), x, create_graph=True)
        dl_dx.sum().backward()
        module.loss(x, torch.rand(33, 3), "L2").backward()
        with torch.no_grad():
            module(x)
    names = {event.key for event in profile.key_averages()}
    assert "numbanet_evaluated" in names
    assert not [name for name in names if name.startswith("numbanet::")]


def test_modes_that_look_at_operators_see_them(module):
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Noted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    x = torch.rand(33, 2)
    expected = module(x)
    with Noted():
        torch.testing.assert_close(module(x), expected)
    assert "numbanet.forward.default" in seen


def test_features_are_kept_for_gradients_of_parameters_alone(module, monkeypatch):
    kept, plain = [], tcnn.evaluator.Evaluator.forward

    def noted(self, *arguments, **options):
        found = plain(self, *arguments, **options)
        kept.append(found[1] if found[1] is None else found[1].shape)
        return found

    monkeypatch.setattr(tcnn.evaluator.Evaluator, "forward", noted)
    x = torch.rand(33, 2)
    module(x)
    module(x.clone().requires_grad_())
    with torch.no_grad():
        module(x)
    module.params.requires_grad_(False)
    module(x)
    width = naive.Model(*MODELS["hash"]).encoding.n_outputs + 2 * 16
    assert kept == [(33, width), None, None, None]


# Widths are padded to 16; SiLU, the last one of smooth, is differentiated where it was activated.
@pytest.mark.parametrize(("name", "n_hidden"), [("hash", 32), ("smooth", 32), ("one_blob", 48)])
@pytest.mark.parametrize("n", [1, 257])
def test_hidden_layers_are_kept_of_batches_that_are_not_large(name, n_hidden, n, monkeypatch):
    """Gradients are the same without them, and not the same with others."""
    n_input_dims, n_output_dims, config = MODELS[name]
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"]
    )
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(models.lively_params(naive.Model(*MODELS[name]))))
    x, dl_dy = torch.rand(n, n_input_dims), torch.rand(n, n_output_dims)

    def gradient(limit, factor=1):
        monkeypatch.setattr(tcnn.evaluator, "MOST_KEPT_BYTES", limit)
        y = module(x)
        kept = y.grad_fn.saved_tensors[2]
        n_rows = min(n, 128)  # of the first tile, whose features come first
        flat = kept.numpy().reshape(-1)  # whose changes autograd does not see
        flat[n_rows * n_features : n_rows * kept.shape[1]] *= factor
        return kept.shape[1], torch.autograd.grad(y, module.params, dl_dy)[0]

    n_features = naive.Model(*MODELS[name]).encoding.n_outputs
    width, anew = gradient(0)
    assert width == n_features
    width, found = gradient(4 * n * (n_features + n_hidden))
    assert width == n_features + n_hidden
    torch.testing.assert_close(found, anew, rtol=1e-4, atol=1e-5)
    _, of_others = gradient(1 << 24, 2)
    assert (of_others - found).norm() > 0.1 * found.norm() > 0


def test_pytorch_that_has_no_tags_for_operators():
    """As releases before the one that can say that an operator is not for CUDA graphs."""
    code = """
import torch.library
registered, new = [], torch.library.custom_op
def custom_op(name, function=None, /, *, mutates_args, device_types=None, schema=None):
    registered.append(name)
    return new(name, function, mutates_args=mutates_args)
torch.library.custom_op = custom_op
import numbanet.torch
assert len(registered) == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_processes_train_as_one(tmp_path):
    """With replicas of all parameters, whole and split, and with those of others sharded."""
    data_parallel.check(tmp_path)


def test_parameters_may_share_memory_with_numpy():
    module = tcnn.Encoding(3, SMOOTH, device="cpu")
    table = module.params.detach().numpy()
    before = module(torch.full((1, 3), 0.3)).detach().clone()
    table[:] = 1
    after = module(torch.full((1, 3), 0.3)).detach()
    assert not torch.equal(before, after)
    assert_close(after, np.ones((1, 3)), 1e-5)


def test_inputs_elsewhere_are_moved_with_a_warning():
    """The meta device stands for a second one."""
    module = tcnn.Network(2, 3, mlp("CutlassMLP", 16, 1), device="meta")
    with pytest.warns(UserWarning, match="inputs on cpu are moved to meta, where the parameters"):
        assert module(torch.zeros(4, 2)).device.type == "meta"
