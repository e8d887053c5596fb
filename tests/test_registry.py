"""The registry: names, derived values, warnings and messages."""

import json
from dataclasses import dataclass
from typing import Optional

import numpy as np
import pytest

from numbanet import losses, networks, optimizers, registry
from numbanet.random import Pcg32, seed_sequence
from numbanet.registry import ConfigError, derived, register
from numbanet.unknown_options import UnknownOptionWarning


@dataclass(frozen=True)
class Part:
    """A component with one option of each type."""

    n_dims: int = derived()
    count: int = 3
    rate: float = 0.5
    flag: bool = False
    name: str = "middle"

    def __post_init__(self):
        registry.check(self.count > 0, "count", self.count, "a positive number")


@pytest.fixture(autouse=True)
def part(monkeypatch):
    """A registry that holds Part as well; the real one is left alone."""
    names = {kind: list(known) for kind, known in registry._display_names.items()}
    monkeypatch.setattr(registry, "_components", dict(registry._components))
    monkeypatch.setattr(registry, "_display_names", names)
    return register("encoding", "Part", "Piece")(Part)


def create(config, **extra):
    return registry.create("encoding", config, default="Part", **{"n_dims": 2, **extra})


def test_options_reach_their_fields():
    config = {"otype": "Part", "count": 7, "rate": 2, "flag": True, "name": "left"}
    assert create(config) == Part(2, 7, 2.0, True, "left")
    assert isinstance(create(config).rate, float)


@pytest.mark.parametrize("name", ["Part", "part", "PIECE"])
def test_a_component_has_several_names_in_any_case(name):
    assert create({"otype": name}) == Part(2)


def test_the_default_otype_is_used_where_none_is_given():
    assert create({}) == Part(2)


def test_values_that_the_component_does_not_derive_are_dropped():
    assert create({}, n_everything=9) == Part(2)


def test_derived_values_are_no_options():
    with pytest.warns(UnknownOptionWarning, match=r"encoding\.n_dims: Part has no such option"):
        assert create({"n_dims": 9}) == Part(2)
    assert "n_dims" not in registry.options(Part)
    assert "n_dims" not in registry.to_config(Part(2))


def test_to_config_writes_every_option_under_the_first_name():
    config = registry.to_config(create({"otype": "piece", "count": np.int64(4)}))
    assert config == {"otype": "Part", "count": 4, "rate": 0.5, "flag": False, "name": "middle"}
    assert create(json.loads(json.dumps(config))) == Part(2, 4)


def test_merged_configs_keep_what_is_not_named():
    inner = {"otype": "B", "x": 1, "y": 2}
    config = {"otype": "A", "one": inner, "many": [inner, inner], "z": 3}
    changes = {"one": {"otype": "b", "x": 5}, "many": [{}, {"y": 6}]}
    assert registry.merged(config, changes) == {
        "otype": "A",
        "one": {"otype": "B", "x": 5, "y": 2},
        "many": [inner, {"otype": "B", "x": 1, "y": 6}],
        "z": 3,
    }
    for replaced in ({"one": {"otype": "C"}}, {"one": 3}, {"many": [inner]}, {"many": []}):
        assert registry.merged(config, replaced) == config | replaced


def test_an_unknown_otype_lists_what_exists():
    with pytest.raises(ConfigError, match=r"^encoding\.otype: 'Parts' is no encoding.*Part, Piece"):
        create({"otype": "Parts"})


def test_an_unknown_option_warns_and_suggests():
    with pytest.warns(UnknownOptionWarning, match=r"encoding\.conut: .*mean 'count'.*count, rate"):
        assert create({"conut": 1}) == Part(2)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("count", 2.5),
        ("count", "3"),
        ("count", True),
        ("count", None),
        ("rate", "fast"),
        ("rate", True),
        ("rate", [1.0]),
        ("flag", 1),
        ("flag", "yes"),
        ("name", 3),
        ("name", None),
    ],
)
def test_a_wrong_type_names_the_option_and_the_value(option, value):
    with pytest.raises(ConfigError) as raised:
        create({option: value})
    assert str(raised.value).startswith(f"encoding.{option}: expected ")
    assert repr(value) in str(raised.value)


@dataclass(frozen=True)
class Open:
    """Options that may be None, annotated in each way that there is."""

    count: int | None = None
    rate: Optional[float] = None  # noqa: UP045
    name: "str | None" = None


@pytest.mark.parametrize("option", ["count", "rate", "name"])
def test_an_option_may_be_none_where_its_annotation_says_so(option):
    register("loss", "Open")(Open)
    good = {"count": 3, "rate": 2.5, "name": "left"}[option]
    for value in (None, good):
        made = registry.create("loss", {"otype": "Open", option: value}, default="none")
        assert getattr(made, option) == value
    expected = {"count": "int", "rate": "float", "name": "str"}[option]
    with pytest.raises(ConfigError, match=rf"^loss\.{option}: expected {expected} \| None, got "):
        registry.create("loss", {"otype": "Open", option: [1]}, default="none")


def test_a_class_that_lacks_methods_cannot_be_registered():
    class Half(losses.base.AbstractLoss):
        pass

    with pytest.raises(TypeError, match=r"^loss Half: .*Half lacks row$"):
        register("loss", "Half")(Half)
    assert "Half" not in registry.registered("loss")


def test_a_wrong_value_names_its_path():
    with pytest.raises(ConfigError, match=r"^encoding\.nested\[1\]\.count: -1 .*positive"):
        create({"count": -1}, path="encoding.nested[1]")


@pytest.mark.parametrize("config", [None, "Part", ["Part"]])
def test_a_config_is_an_object(config):
    with pytest.raises(ConfigError, match=r"^encoding: expected a JSON object"):
        create(config)


def test_names_are_taken_once():
    """A class that is defined anew, as in a notebook, takes the place of the old one."""

    class Other(Part):
        pass

    with pytest.raises(ValueError, match="'pART' is registered already"):
        register("encoding", "BrandNew", "pART")(Other)
    assert "BrandNew" not in registry.registered("encoding")
    assert register("encoding", "pART")(Part) is Part
    assert "pART" not in registry.registered("encoding")


def test_kinds_are_fixed():
    with pytest.raises(ValueError, match=r"kind 'colour'.*encoding, network, loss, optimizer"):
        register("colour", "Part")


# The components that come with the package


@pytest.mark.parametrize(
    ("kind", "name", "component"),
    [
        ("network", "FullyFusedMLP", networks.FullyFusedMLP),
        ("network", "MegakernelMLP", networks.FullyFusedMLP),
        ("network", "CutlassMLP", networks.CutlassMLP),
        ("network", "MLP", networks.CutlassMLP),
        ("loss", "L1", losses.L1),
        ("loss", "L2", losses.L2),
        ("loss", "RelativeL2", losses.RelativeL2),
        ("optimizer", "Adam", optimizers.Adam),
        ("optimizer", "AdamW", optimizers.AdamW),
        ("optimizer", "Average", optimizers.Average),
        ("optimizer", "Batched", optimizers.Batched),
        ("optimizer", "Composite", optimizers.Composite),
        ("optimizer", "CosineDecay", optimizers.CosineDecay),
        ("optimizer", "EMA", optimizers.EMA),
        ("optimizer", "ExponentialDecay", optimizers.ExponentialDecay),
        ("optimizer", "Lookahead", optimizers.Lookahead),
        ("optimizer", "Muon", optimizers.Muon),
        ("optimizer", "Novograd", optimizers.Novograd),
        ("optimizer", "Piecewise", optimizers.Piecewise),
        ("optimizer", "SGD", optimizers.SGD),
        ("optimizer", "Shampoo", optimizers.Shampoo),
        ("optimizer", "SOAP", optimizers.SOAP),
        ("optimizer", "WarmUp", optimizers.WarmUp),
    ],
)
def test_names_of_the_package(kind, name, component):
    assert registry.registered(kind)[name] is component


def network(otype, n_inputs=32, **options):
    sizes = {"n_input_dims": n_inputs, "n_output_dims": 3}
    return registry.create("network", {"otype": otype, **options}, default="MLP", **sizes)


def test_defaults_of_networks():
    for otype in ("FullyFusedMLP", "CutlassMLP"):
        assert registry.to_config(network(otype)) == {
            "otype": otype,
            "n_neurons": 128,
            "n_hidden_layers": 5,
            "activation": "ReLU",
            "output_activation": "None",
            "bias": False,
            "siren_omega": 30.0,
            "siren_first_scale": 1.0,
        }


def test_activation_names_are_written_as_in_the_table():
    made = network("MLP", activation="leaky relu", output_activation="SIGMOID")
    assert (made.activation, made.output_activation) == ("LeakyReLU", "Sigmoid")
    assert made == network("MLP", activation="LeakyReLU", output_activation="Sigmoid")


@pytest.mark.parametrize("n_neurons", [1, 17, 100, 144])
def test_only_cutlass_mlp_takes_any_width(n_neurons):
    assert network("CutlassMLP", n_neurons=n_neurons).n_neurons == n_neurons
    with pytest.raises(
        ConfigError, match=rf"network\.n_neurons: {n_neurons} .*multiple of 16.*CutlassMLP"
    ):
        network("FullyFusedMLP", n_neurons=n_neurons)


@pytest.mark.parametrize("n_neurons", range(16, 129, 16))
def test_fully_fused_mlp_takes_multiples_of_16(n_neurons):
    assert network("FullyFusedMLP", n_neurons=n_neurons).shapes[0][0] == n_neurons


def test_only_cutlass_mlp_takes_no_hidden_layers():
    assert network("CutlassMLP", n_hidden_layers=0).shapes == ((16, 32),)
    with pytest.raises(ConfigError, match=r"network\.n_hidden_layers: 0 .*CutlassMLP"):
        network("FullyFusedMLP", n_hidden_layers=0)


def test_fully_fused_mlp_needs_a_padded_input():
    with pytest.raises(ConfigError, match=r"network\.n_input_dims: 17 .*multiple of 16"):
        network("FullyFusedMLP", n_inputs=17)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_neurons", -64),
        ("n_neurons", 0),
        ("n_hidden_layers", -1),
        ("activation", "GELU"),
        ("output_activation", "softmax"),
    ],
)
@pytest.mark.parametrize("otype", ["FullyFusedMLP", "CutlassMLP"])
def test_wrong_options_of_networks(otype, option, value):
    with pytest.raises(ConfigError, match=rf"^network\.{option}: {value!r} is not allowed; use "):
        network(otype, **{option: value})


@pytest.mark.parametrize("otype", ["FullyFusedMLP", "CutlassMLP"])
def test_matrices_and_initial_values_are_those_of_tiny_cuda_nn(otype):
    """Known first weights of a 64 x 32 matrix, for the two ways to seed the stream."""
    made = network(otype, n_neurons=64, n_hidden_layers=2)
    assert made.shapes == ((64, 32), (64, 64), (16, 64))
    assert made.n_params == 7168
    for seed, first in ((1337, -0.176150322), (seed_sequence(1337), -0.192895234)):
        rng = Pcg32(seed)
        params = made.initial_params(rng)
        np.testing.assert_allclose(params[0], first, rtol=1e-7)
        bounds = [abs(p).max() for p in np.split(params, [2048, 6144])]
        np.testing.assert_allclose(bounds, [0.25, 0.21650635, 0.27386128], rtol=2e-2)
        after = Pcg32(seed)
        after.advance(7168)
        assert rng.state == after.state
