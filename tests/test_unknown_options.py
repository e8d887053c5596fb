"""Warnings about what nothing reads: at the caller's line, one for a config, with near names."""

import re
import warnings

import pytest

import numbanet
from numbanet import registry
from numbanet.create import create_loss, create_optimizer
from numbanet.create_model import (
    create_encoding,
    create_network,
    create_network_with_input_encoding,
)
from numbanet.registry import ConfigError
from numbanet.unknown_options import ELSEWHERE, UnknownOptionWarning

NETWORK = {"otype": "CutlassMLP", "n_neurons": 16, "n_hidden_layers": 1}
CPU = {"device": "cpu"}
ENTRIES = {
    "create_loss": lambda: create_loss({"colour": 1}),
    "create_optimizer": lambda: create_optimizer({"nested": {}, "otype": "EMA", "colour": 1}),
    "create_encoding": lambda: create_encoding(2, {"otype": "Identity", "colour": 1}, **CPU),
    "create_network": lambda: create_network(2, 1, {**NETWORK, "colour": 1}, **CPU),
    "create_network_with_input_encoding": lambda: create_network_with_input_encoding(
        2, 1, {"otype": "Identity"}, {**NETWORK, "colour": 1}, **CPU
    ),
    "create_from_config": lambda: numbanet.create_from_config(
        2, 1, {"network": {**NETWORK, "colour": 1}}, **CPU
    ),
}


@pytest.mark.parametrize("create", ENTRIES.values(), ids=ENTRIES)
def test_the_warning_points_at_the_caller(create):
    with pytest.warns(UnknownOptionWarning, match=r"\.colour: \w+ has no such option") as warned:
        create()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    first = create.__code__.co_firstlineno
    assert first <= warned[0].lineno <= first + 2


def test_one_warning_for_a_config():
    config = {
        "loss": {"otype": "L2", "start_level": 1},
        "optimizer": {"otype": "EMA", "nested": {"learning_rat": 1}},
        "encoding": {
            "otype": "Composite",
            "nested": [{"otype": "Identity", "n_dims_to_encode": 1, "xyz": 1}, {"n_bin": 4}],
        },
        "network": {**NETWORK, "a": 1, "b": 2},
        "scene": {},
    }
    with pytest.warns(UnknownOptionWarning) as warned:
        numbanet.create_from_config(2, 1, config, **CPU)
    assert len(warned) == 1
    message = str(warned[0].message)
    paths = [line.partition(":")[0] for line in message.splitlines()]
    assert paths == [
        "scene",
        "loss.start_level",
        "optimizer.nested.learning_rat",
        "encoding.nested[0].xyz",
        "encoding.nested[1].n_bin",
        "network.a",
        "network.b",
    ]
    assert re.findall(r"did you mean '(\w+)'", message) == ["learning_rate", "n_bins"]


def test_a_warning_is_short():
    config = {**NETWORK, **{f"option_{k}" + "x" * 10_000: k for k in range(1000)}}
    with pytest.warns(UnknownOptionWarning, match="and 992 more") as warned:
        create_network(2, 1, config, **CPU)
    assert len(warned) == 1
    assert len(str(warned[0].message)) < 2000


@pytest.mark.parametrize(
    "config",
    [
        {"encoding": {"otype": "Frequency", "n_dims_to_encode": 2}},
        {"encoding": {"otype": "Frequency", "n_dims_to_encode": 2, "dims_to_encode_begin": 0}},
        {"network": {**NETWORK, "feedback_alignment": False}},
    ],
)
def test_what_programs_always_pass_is_no_news(config):
    numbanet.create_from_config(2, 1, {"network": NETWORK, **config}, **CPU)  # warnings are errors


@pytest.mark.parametrize(
    "config",
    [
        {"encoding": {"otype": "Frequency", "n_dims_to_encode": 1}},
        {"encoding": {"otype": "Frequency", "dims_to_encode_begin": 1}},
        {"network": {**NETWORK, "feedback_alignment": True}},
    ],
)
def test_what_they_pass_with_another_value_is(config):
    with pytest.warns(UnknownOptionWarning, match="has no such option"):
        numbanet.create_from_config(2, 1, {"network": NETWORK, **config}, **CPU)


def test_an_error_is_not_hidden_by_a_warning():
    with pytest.raises(ConfigError, match=r"^loss\.otype"):
        numbanet.create_from_config(2, 1, {"scene": 1, "loss": {"otype": "?"}}, **CPU)
    with pytest.warns(UnknownOptionWarning, match=r"^loss\.colour: "):  # nothing is left behind
        create_loss({"colour": 1})


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        ("loss", "MSE", "L2"),
        ("loss", "mae", "L1"),
        ("loss", "RelativL2", "RelativeL2"),
        ("optimizer", "CosineAnnealingLR", "CosineDecay"),
        ("optimizer", "Adams", "Adam"),
        ("optimizer", "ExponentalDecay", "ExponentialDecay"),
        ("encoding", "HashGird", "HashGrid"),
        ("encoding", "hash_grid", "HashGrid"),
        ("network", "FullyFusedMPL", "FullyFusedMLP"),
    ],
)
def test_a_mistaken_otype_has_a_suggestion(kind, name, meant):
    with pytest.raises(ConfigError, match=rf"'{name}' is no {kind}; did you mean '{meant}'\?"):
        registry.create(kind, {"otype": name}, default="none")


def test_a_strange_otype_has_none():
    with pytest.raises(ConfigError, match=r"'Colour' is no loss; use one of"):
        registry.create("loss", {"otype": "Colour"}, default="none")


@pytest.mark.parametrize(
    ("name", "meant"), [("Linear", "None"), ("Swish", "SiLU"), ("relu6", "ReLU"), ("tahn", "Tanh")]
)
def test_so_has_a_mistaken_activation(name, meant):
    with pytest.raises(ConfigError, match=rf"'{name}' is not .*, did you mean '{meant}'\?"):
        registry.create(
            "network", {"activation": name}, default="MLP", n_input_dims=16, n_output_dims=1
        )


def test_names_from_elsewhere_lead_to_what_exists():
    for kind, names in ELSEWHERE.items():
        for name, meant in names.items():
            assert registry.find(kind, meant) is not None
            assert registry.find(kind, name) is None


def test_a_file_is_not_a_config(tmp_path):
    for config in ("config.json", tmp_path / "config.json"):
        with pytest.raises(ConfigError, match=r"^config: .*numbanet\.load_config reads files"):
            numbanet.create_from_config(2, 1, config, **CPU)
        with pytest.raises(ConfigError, match=r"^loss: .*numbanet\.load_config reads files"):
            create_loss(config)


def test_updates_refuse_what_creation_warns_about():
    trainer = numbanet.create_from_config(2, 1, {"network": NETWORK}, **CPU).trainer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # is no way to have an unknown option
        with pytest.raises(ConfigError, match=r"^optimizer\.learning_rat: .*'learning_rate'"):
            trainer.update_hyperparams({"optimizer": {"learning_rat": 1}})


@pytest.mark.parametrize(
    ("section", "options", "meant"),
    [
        ("optimizer", {"otype": "Muon", "lr": 1.0}, "learning_rate"),
        ("optimizer", {"otype": "EMA", "lr": 1.0}, "nested"),
        ("optimizer", {"otype": "SOAP", "precondition_frequency": 5}, "interval"),
        ("network", {**NETWORK, "w0": 30.0}, "siren_omega"),
        ("pertubation_sigma", 0.1, "perturbation_sigma"),
        ("optimiser", {}, "optimizer"),
    ],
)
def test_names_from_elsewhere_and_misspelt_sections(section, options, meant):
    with pytest.warns(UnknownOptionWarning, match=rf"has no such .*; did you mean '{meant}'\?"):
        numbanet.create_from_config(2, 1, {section: options}, **CPU)
