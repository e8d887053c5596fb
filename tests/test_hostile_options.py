"""One law for every option of every component: a value is taken, or refused at once by name.

What was refused before came from all over Python: OverflowError, RecursionError, MemoryError, or
nothing for minutes.
"""

import dataclasses
import json
import math
import warnings

import laws
import numpy as np
import pytest

import numbanet
from numbanet import registry
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.registry import ConfigError
from numbanet.unknown_options import UnknownOptionWarning


def nested(depth):
    value = 1.0
    for _ in range(depth):
        value = [value]
    return value


def emas(depth):
    config = {"otype": "Adam"}
    for _ in range(depth):
        config = {"otype": "EMA", "nested": config}
    return config


EXTREMES = {
    "0": 0,
    "-1": -1,
    "2**31 - 1": 2**31 - 1,
    "2**31": 2**31,
    "-2**31": -(2**31),
    "10**6": 10**6,
    "10**12": 10**12,
    "2**64": 2**64,
    "10**400": 10**400,
    "5000 digits": -(10**5000),
    "1e-39": 1e-39,
    "1e-50": 1e-50,
    "5e-324": 5e-324,
    "1e39": 1e39,
    "1e308": 1e308,
    "-1e-39": -1e-39,
    "0.5": 0.5,
    "1 - 2**-53": 1 - 2**-53,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "true": True,
    "false": False,
    "None": None,
    "empty": "",
    "null character": "\0",
    "surrogate": "\ud800",
    "long text": "Adam" * 25_000,
    "bytes": b"\xff" * 1000,
    "list": [],
    "object": {},
    "deep list": nested(2000),
    "long list": [{}] * 10_000,
    "many lists": [[]] * 10_000,
    "emas": emas(400),
    "float16": np.float16(np.inf),
    "int64": np.int64(-(2**63)),
    "array": np.zeros(3),
    "array of one": np.zeros(1),
    "complex": 1j,
    "set": {1, 2},
}


def cases():
    """Each option of each component, with the example that it is changed in."""
    for kind in registry.KINDS:
        known = {}
        for otype, config, sizes in laws.examples(kind):
            known.setdefault(otype, (config, sizes))
        for otype, (config, sizes) in known.items():
            component = laws.create(kind, otype, config, sizes)
            for option in ("otype", "colour", *registry.options(type(component))):
                yield pytest.param(kind, otype, config, sizes, option, id=f"{otype}-{option}")


@pytest.mark.parametrize(("kind", "otype", "config", "sizes", "option"), list(cases()))
def test_a_value_is_taken_or_refused_by_name(kind, otype, config, sizes, option):
    path = f"{kind}.{option}"
    for name, value in EXTREMES.items():
        changed = {"otype": otype, **config, option: value}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnknownOptionWarning)
                component = registry.create(kind, changed, default="none", **sizes)
        except ConfigError as error:
            message = str(error)
            assert message.startswith(f"{kind}."), f"{name}: {message}"
            assert len(message) < 1000, name
            message.encode()
            if kind != "encoding" or "Grid" not in otype:  # whose options depend on each other
                assert message.startswith(path), f"{name}: {message}"
        else:
            again = json.loads(json.dumps(registry.to_config(component), allow_nan=False))
            assert laws.create(kind, otype, again, sizes) == component, name
            assert_usable(component)


def assert_usable(component):
    """Sizes are numbers that arrays can have, and floats stay what they are in float32."""
    for name in ("n_params", "n_outputs", "n_state", "n_scalars"):
        assert 0 <= getattr(component, name, 0) < 2**35, name
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if isinstance(value, float):
            assert np.isfinite(np.float32(value)), field.name


@pytest.mark.parametrize(
    ("network", "option"),
    [
        ({"n_neurons": 10**12}, "n_neurons"),
        ({"n_neurons": 2**31 - 1}, "n_neurons"),
        ({"n_neurons": 40_000}, "n_neurons"),
        ({"n_hidden_layers": 10**6}, "n_hidden_layers"),
        ({"n_hidden_layers": 2**31}, "n_hidden_layers"),
        ({"otype": "FullyFusedMLP", "n_hidden_layers": 10**6}, "n_hidden_layers"),
    ],
)
def test_sizes_are_refused_by_arithmetic(network, option):
    with pytest.raises(ConfigError, match=rf"^network\.{option}: .* is not allowed|fits no"):
        numbanet.create_from_config(2, 1, {"network": network}, device="cpu")


@pytest.mark.parametrize("n", [0, 2**20 + 1, 10**12, 10**5000, math.nan], ids=lambda n: "n")
@pytest.mark.parametrize("which", [0, 1])
def test_widths_have_limits(which, n):
    widths = [2, 1]
    widths[which] = n
    name = ("n_input_dims", "n_output_dims")[which]
    with pytest.raises(ValueError, match=rf"^{name}: .* is not allowed; use an integer from 1 to"):
        numbanet.create_from_config(*widths, {}, device="cpu")


def test_wide_encodings_are_refused_by_arithmetic():
    encoding = create_encoding_component(2**20, {"otype": "Frequency", "n_frequencies": 32})
    with pytest.raises(ConfigError, match=r"^network\.n_neurons: "):
        create_network_component(encoding, 1, {"n_neurons": 128})


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"learning_rate": 10**400}, "optimizer.learning_rate"),
        ({"learning_rate": np.float32(np.nan)}, "optimizer.learning_rate"),
        ({"otype": -(10**5000)}, "optimizer.otype"),
        ({"nested": emas(400)}, "optimizer.nested.nested"),
        ({10**5000: 1}, "optimizer.an integer of 5001 digits"),
        (nested(2000), "optimizer"),
        ("x" * 10**6, "optimizer"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 50 else "",
)
def test_hyperparams_have_the_same_limits(changes, path):
    model = numbanet.create_from_config(1, 1, {"network": {"n_neurons": 16}}, device="cpu")
    before = model.trainer.config()
    with pytest.raises(ConfigError) as raised:
        model.trainer.update_hyperparams({"optimizer": changes})
    assert str(raised.value).startswith(path)
    assert len(str(raised.value)) < 1000
    assert model.trainer.config() == before


@pytest.mark.parametrize("growth", [5e-324, 1e-46, 0.0, -1.0])
def test_a_growth_that_is_nothing_in_float32_is_refused_by_name(growth):
    with pytest.raises(ConfigError, match=r"^encoding\.per_level_scale: .* is not allowed"):
        numbanet.create_encoding(2, {"otype": "Grid", "per_level_scale": growth}, device="cpu")


@pytest.mark.parametrize("alignment", [-1, 2**62, 10**400, True, 1.5, "16"], ids=repr)
def test_an_alignment_has_limits(alignment):
    with pytest.raises(ValueError, match=r"^alignment: .* is not allowed") as raised:
        numbanet.create_encoding(2, {"otype": "Identity"}, alignment=alignment, device="cpu")
    assert len(str(raised.value)) < 200
