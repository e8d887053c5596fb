"""Parts of modules by name: views, parameters of their own, groups of them, states."""

import copy
import pickle

import numpy as np
import pytest
from models import HASH, MODELS, mlp

import numbanet

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")

import numbanet.torch as tcnn  # noqa: E402

N_INPUTS, N_OUTPUTS, CONFIG = MODELS["hash"]
LR = {"encoding.*": {"lr": 5e-2, "weight_decay": 0.0}, "network.*": {"lr": 1e-3}}


def make(seed=3, **options):
    return tcnn.NetworkWithInputEncoding(
        N_INPUTS, N_OUTPUTS, CONFIG["encoding"], CONFIG["network"], seed, **options
    )


@pytest.fixture
def x():
    return torch.from_numpy(np.random.default_rng(0).random((24, N_INPUTS), np.float32))


def loss_of(module, x):
    return (module(x).float() - torch.sin(9 * x[:, :1])).square().mean()


def test_parts_are_numbanets_and_views():
    module, model = make(), numbanet.create_from_config(N_INPUTS, N_OUTPUTS, CONFIG, 3, "cpu")
    parts, levels = module.named_parts(), model.network.levels
    matrices = [name for name in parts if name.startswith("network.")]
    assert list(parts) == matrices + [level.name for level in levels]
    for level in levels:
        part = parts[level.name]
        assert (part.offset, part.resolution) == (level.offset, level.resolution)
        with torch.no_grad():
            part.params.copy_(torch.full(level.params.shape, float(level.resolution)))
        level.params[:] = level.resolution
    np.testing.assert_array_equal(
        module.params.detach()[parts[levels[0].name].offset :],
        model.network.params[levels[0].offset :],
    )
    named = model.network.named_shapes()
    assert all(tuple(parts[name].params.shape) == named[name] for name in matrices)
    parts[matrices[0]].params.square().sum().backward()
    assert module.params.grad.count_nonzero() == parts[matrices[0]].params.count_nonzero() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_splitting_changes_no_value_and_no_gradient(x, dtype):
    module, split = make(dtype=dtype), make(dtype=dtype).split_parts()
    assert split.split_parts() is split
    assert [name for name, _ in split.named_parameters()] == list(module.named_parts())
    for each in (module, split):
        loss_of(each, x).backward()
    assert torch.equal(split(x), module(x))
    grads = [part.params.grad.reshape(-1) for part in split.named_parts().values()]
    assert torch.equal(torch.cat(grads), module.params.grad)
    assert module.params.grad.count_nonzero() > 0


def test_parameters_that_had_gradients_keep_them(x):
    module = make()
    loss_of(module, x).backward()
    expected, frozen = module.params.grad.clone(), make()
    module.split_parts()
    assert torch.equal(torch.cat([p.grad.reshape(-1) for p in module.parameters()]), expected)
    frozen.params.requires_grad_(False)
    assert not any(each.requires_grad for each in frozen.split_parts().parameters())


def test_parts_train_at_their_own_rates(x):
    """A rate of the half for all of the vector is that rate for its parts."""
    module, split = make(), make().split_parts()
    vector = torch.optim.SGD([module.params], lr=0.5)
    parts = torch.optim.SGD(
        split.param_groups({"encoding.levels.1": {"lr": 0.0}, "network.*": {"lr": 0.5}}), lr=1.0
    )
    before = module.params.detach().clone()
    for each, optimizer in ((module, vector), (split, parts)):
        loss_of(each, x).backward()
        optimizer.step()
    moved = module.params.detach() - before
    for name, part in split.named_parts().items():
        factor = {"encoding.levels.1": 0.0}.get(name, 1.0 if name.startswith("network") else 2.0)
        stop = part.offset + part.params.numel()
        found = part.params.detach().reshape(-1) - before[part.offset : stop]
        torch.testing.assert_close(found, factor * moved[part.offset : stop], atol=1e-7, rtol=1e-4)
    assert moved.count_nonzero() > 0


def test_training_with_groups_learns(x):
    module = make().split_parts()
    optimizer = torch.optim.Adam(module.param_groups(LR))
    assert [len(group["params"]) for group in optimizer.param_groups] == [
        sum(name.startswith(part) for name in module.named_parts())
        for part in ("encoding", "network")
    ]
    first = loss_of(module, x).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(module, x).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()
    assert loss_of(module, x).item() < 0.6 * first


# States and copies


def test_states_are_those_of_the_vector(x):
    plain, split = make(seed=1), make(seed=2).split_parts()
    holder = torch.nn.Sequential(split)
    assert list(split.state_dict()) == ["params"]
    assert list(holder.state_dict()) == ["0.params"]
    holder.load_state_dict({"0.params": plain.params.detach().half()})
    assert next(split.parameters()).dtype == torch.float32
    split.load_state_dict(plain.state_dict())
    assert torch.equal(split(x), plain(x))
    with torch.no_grad():
        next(split.parameters()).add_(1)
    plain.load_state_dict(split.state_dict())
    assert torch.equal(split(x), plain(x))
    split.load_state_dict({"params": plain.params.detach().half()}, assign=True)
    assert all(each.dtype == torch.float16 for each in split.parameters())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "Missing key.*params"),
        ({"params": torch.zeros(3)}, r"params: expected a tensor of shape \[\d+\], got \[3\]"),
        ({"params": 7}, "params: expected a tensor .* got int"),
        ({"other": torch.zeros(3)}, "Unexpected key"),
    ],
)
def test_wrong_states_are_errors_and_write_nothing(state, message):
    module = make().split_parts()
    before = module.params.detach()
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(state)
    assert torch.equal(module.params, before)
    assert not module.load_state_dict({}, strict=False).unexpected_keys


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_their_own(copied, x):
    module = make().split_parts()
    other, before = copied(module), module(x).detach()
    assert torch.equal(other(x), before)
    with torch.no_grad():
        for each in other.parameters():
            each.add_(1)
    assert torch.equal(module(x), before)
    assert not torch.equal(other(x), before)


def test_other_types_of_parameters(x):
    module, split = make().half(), make().split_parts().half()
    assert torch.equal(split(x), module(x))
    assert split.params.dtype == torch.float16
    assert torch.equal(split.double().float()(x), module.float()(x))
    assert split.to("meta").params.is_meta


def test_compiled_and_functional_programs(x):
    module = make().split_parts()
    compiled = torch.compile(lambda x: 2 * module(x), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), 2 * module(x))
    zeros = {name: torch.zeros_like(each) for name, each in module.named_parameters()}
    y = torch.func.functional_call(module, zeros, x)
    assert not y.any()
    assert module(x).any()


def test_losses_are_split_too(x):
    module, split = make(), make().split_parts()
    targets = torch.zeros(len(x), N_OUTPUTS)
    for each in (module, split):
        each.loss(x, targets, "L2").backward()
    grads = [each.grad.reshape(-1) for each in split.parameters()]
    assert torch.equal(torch.cat(grads), module.params.grad)


# Modules of one part or none, and wrong use


def test_modules_of_one_part_or_none():
    lattice = {"otype": "Permutohedral", "n_levels": 2, "log2_hashmap_size": 8}
    whole, nothing = tcnn.Encoding(6, lattice), tcnn.Encoding(3, {"otype": "SphericalHarmonics"})
    assert whole.split_parts().named_parts()["params"].params is whole.params
    (group,) = whole.param_groups({"*": {"lr": 0.5}})
    assert group["params"][0] is whole.params
    assert nothing.split_parts().named_parts() == {}
    assert nothing.param_groups({}) == []
    by_itself = tcnn.Encoding(2, HASH).split_parts()
    assert all(name.startswith("levels.") for name in by_itself.named_parts())
    network = tcnn.Network(3, 2, mlp("FullyFusedMLP", 16, 2)).split_parts()
    assert list(network.named_parts()) == ["network.0", "network.1", "network.2"]


def test_wrong_groups_are_errors():
    with pytest.raises(RuntimeError, match="call its split_parts"):
        make().param_groups(LR)
    module = make().split_parts()
    with pytest.raises(ValueError, match=r"'networks\.\*' names no part .* network\.0"):
        module.param_groups({"networks.*": {}})
    with pytest.raises(ValueError, match="names no part that is left"):
        module.param_groups({"*": {}, "network.0": {}})
    with pytest.raises(ValueError, match="has 'params'"):
        module.param_groups({"*": {"params": []}})
    for wrong in (None, 3, {"network.*": 1e-2}, {3: {}}, [("network.*", {})]):
        with pytest.raises(TypeError, match="expected names with options"):
            module.param_groups(wrong)
    for value in (torch.nn.Parameter(torch.zeros(3)), torch.zeros(3)):
        with pytest.raises(AttributeError, match="the module is split"):
            module.params = value
