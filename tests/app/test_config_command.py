"""`numbanet config`, --set, and what commands print: for a person, for a program, or nothing."""

import json
import logging
import logging.handlers
import sys

import pytest

import numbanet
from numbanet import registry
from numbanet.app.config_schema import config_schema
from numbanet.app.errors import UsageError
from numbanet.app.output import Output
from numbanet.app.overrides import overridden

SIZES = {
    "encoding": [{"n_dims": 2}, {"n_dims": 3}, {"n_dims": 8}],
    "network": [{"n_input_dims": 32, "n_output_dims": 3}],
    "loss": [{}],
    "optimizer": [{}],
}
NEEDED = {  # without which a component is nothing
    ("encoding", "Composite"): {"nested": [{"otype": "oneblob", "n_dims_to_encode": None}]},
    ("optimizer", "Composite"): {"nested": [{"otype": "adam", "n_params_to_optimize": 3}]},
}


@pytest.fixture(scope="module")
def schema():
    jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema")
    jsonschema.Draft7Validator.check_schema(config_schema())
    return jsonschema.Draft7Validator(config_schema())


def created(kind, name, **options):
    """A component of one of the sizes that it takes."""
    config = {"otype": name, **NEEDED.get((kind, name), {}), **options}
    for sizes in SIZES[kind]:
        try:
            return config, registry.create(kind, config, default=name, **sizes)
        except numbanet.ConfigError as error:
            reason = error
    raise reason


def all_names():
    return [(kind, name) for kind in registry.KINDS for name in registry.registered(kind)]


@pytest.mark.parametrize(("kind", "name"), all_names())
def test_the_schema_takes_what_components_are(schema, kind, name):
    """As one writes them, in any case, and with every option written out."""
    config, component = created(kind, name)
    for each in (config, {**config, "otype": name.upper()}, registry.to_config(component)):
        assert list(schema.iter_errors({kind: each})) == []


@pytest.mark.parametrize(("kind", "name"), all_names())
def test_the_schema_refuses_what_components_refuse(schema, kind, name):
    """A value of another type, for each option that has one of its own."""
    config, component = created(kind, name)
    options = registry.options(type(component))
    assert set(registry.to_config(component)) == {"otype", *options}
    for option, field in options.items():
        wrong = "x" if "Optimizer" in registry.type_name(field) else {"a": []}
        with pytest.raises(numbanet.ConfigError):
            created(kind, name, **{option: wrong})
        assert list(schema.iter_errors({kind: {**config, option: wrong}})), option


@pytest.mark.parametrize(
    "config",
    [
        {"encoding": {"otype": "HashGird"}},
        {"network": {"activation": "Relu6"}},
        {"network": {"n_neurons": 1.5}},
        {"encoding": {"otype": "Grid", "interpolation": "Cubic"}},
        {"encoding": {"otype": "Composite", "nested": [{"otype": "OneBlob", "n_bins": "8"}]}},
        {"optimizer": {"learning_rate": True}},
        {"optimizer": {"otype": "Piecewise", "points": [[0, 1.0], [10]]}},
        {"optimizer": {"otype": "Piecewise", "points": {"0": 1.0}}},
        {"loss": "L2"},
        {"parent": 3},
    ],
)
def test_the_schema_and_the_components_refuse_the_same(schema, config):
    assert list(schema.iter_errors(config))
    with pytest.raises(ValueError, match=r"^\w+"):
        numbanet.create_from_config(2, 3, numbanet.load_config(config), device="cpu")


def test_a_config_may_name_its_schema():
    numbanet.create_from_config(2, 1, {"$schema": "numbanet.schema.json"}, device="cpu")


def test_the_schema_is_printed(command):
    code, out, _ = command("config", "schema")
    assert code == 0
    assert json.loads(out) == config_schema()
    assert '"$schema": "numbanet.schema.json"' in json.loads(out)["description"]


def test_show_writes_every_option(command, config):
    code, out, err = command("config", "show", config, "--set", "encoding.n_levels=3")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["encoding"]["n_levels"] == 3
    model = numbanet.create_from_config(2, 3, shown, device="cpu")
    assert model.trainer.config() == shown
    assert command("config", "show", config, "--json")[1].count("\n") == 1


def test_check_tells_what_nothing_reads(command, config):
    assert command("config", "check", config)[:2] == (0, "it can be used\n")
    code, out, err = command("config", "check", config, "--set", "encoding.n_level=3")
    assert code == 1
    assert "without what nothing reads" in out
    assert err.startswith("numbanet: warning: encoding.n_level: Grid has no such option; did you ")
    code, out, _ = command("config", "check", config, "--json", "--set", "loss.width=3")
    found = json.loads(out)
    assert (code, found["usable"], len(found["unread"])) == (1, True, 1)
    assert command("config", "check", config, "--quiet", "--set", "loss.width=3") == (1, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "encoding.n_levels=0"], "encoding.n_levels: 0 is not allowed; use 1 to 128"),
        (["--set", "encoding.otype=HashGird"], "'HashGird' is no encoding; did you mean"),
        (["--set", "network.n_neurons=wide"], "network.n_neurons: expected int, got 'wide'"),
        (["--set", "encoding.n_levels"], "there is no value; write it as --set encoding."),
        (["--set", "=3"], "this is no path of an option"),
        (["--set", "encoding..x=3"], "this is no path of an option"),
        (["--set", "encoding[0]=3"], "has no 0"),
        (["--set", "encoding.nested=[]", "--set", "encoding.nested[0].degree=3"], "no [0] in a"),
        (["--set", f"encoding.nested[{'9' * 5000}].degree=3"], "this is no path of an option"),
        (["--set", 'loss={"otype": "L1", "otype": "L2"}'], "loss.otype: given twice; keep one"),
        (["--set", "loss.delta=1e999"], "loss.delta: inf is not allowed; use a finite number"),
        (["--set", f"loss={'[' * 99}{']' * 99}"], "nested deeper than 32 objects and lists"),
        (["--set", f"loss{'.x' * 9999}=3"], "nested deeper than 32 objects and lists"),
        (["--dims", "0", "3"], "n_input_dims: 0 is not allowed"),
        (["--dims", "2", "x"], "--dims: invalid int value"),
    ],
)
def test_what_cannot_be_set(command, config, arguments, message):
    code, out, err = command("config", "check", config, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("numbanet: error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_config_has_to_be_named(command):
    assert "name the CONFIG" in command("config", "show")[2]
    assert "leave CONFIG out" in command("config", "schema", "x.json")[2]
    assert "cannot read 'x.json'" in command("config", "check", "x.json")[2]


def test_values_are_json_or_strings():
    nested = [{"otype": "Identity"}, {"otype": "OneBlob"}]
    config = {"encoding": {"otype": "Composite", "nested": nested}}
    assignments = (
        "loss.otype=L2",
        "encoding.nested[1].n_bins=4",
        'encoding.nested[0]={"otype": "Empty"}',
        "optimizer.nested.decay=1e-3",
        "network.activation=None",
        "encoding.x=[1, true]",
    )
    found = overridden(config, assignments)
    assert found["loss"] == {"otype": "L2"}
    assert found["encoding"]["nested"] == [{"otype": "Empty"}, {"otype": "OneBlob", "n_bins": 4}]
    assert found["optimizer"] == {"nested": {"decay": 1e-3}}
    assert found["network"]["activation"] == "None"
    assert found["encoding"]["x"] == [1, True]
    assert config["encoding"]["nested"] is nested
    assert nested[1] == {"otype": "OneBlob"}
    with pytest.raises(UsageError, match="has no 'n_bins'"):
        overridden(config, ["encoding.nested.n_bins=3"])


def test_an_image_is_learned_with_what_was_set(command, photograph, config, tmp_path):
    arguments = ["learn-image", photograph, config, "--steps", 1, "--batch-size", 256, "--json"]
    arguments += ["--set", "optimizer.learning_rate=0.25", "--quiet", "--output", tmp_path / "out"]
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["step"] == 1
    assert str(tmp_path / "out" / "snapshot.safetensors") in found["files"]
    model = numbanet.load(tmp_path / "out" / "snapshot.safetensors", device="cpu")
    assert model.trainer.learning_rate == 0.25


def test_doctor_and_cache_answer_programs(command):
    code, out, _ = command("doctor", "--json")
    assert code == 0
    assert {"Python", "cpu", "cuda", "driver"} <= json.loads(out).keys()
    code, out, _ = command("cache", "--json")
    assert json.loads(out)["kernels"].keys() == json.loads(out)["bytes"].keys()
    assert command("cache", "--quiet") == (0, "", "")


def test_the_log_says_as_much_as_is_asked_for(command, monkeypatch, caplog):
    log = logging.getLogger("numbanet")

    def doctor():
        log.debug("found")
        log.warning("slow")
        log.error("broken")
        yield "cpu", "yes"

    monkeypatch.setattr("numbanet.app.doctor.doctor", doctor)
    before = log.level, log.propagate, list(log.handlers)
    for options, said in (([], ["slow", "broken"]), (["-q"], ["broken"])):
        caplog.clear()
        command("doctor", *options)
        assert caplog.messages == said
    assert command("doctor", "--verbose")[2] == "found\nslow\nbroken\n"
    assert (log.level, log.propagate, log.handlers) == before
    code, _, err = command("doctor", "--verbose", "--quiet")
    assert (code, "not allowed with argument" in err) == (2, True)


@pytest.mark.parametrize(("is_verbose", "said"), [(False, ""), (True, "found\ncompiled\n")])
def test_a_command_that_tells_of_compilations_lets_all_be_logged(is_verbose, said, capsys):
    log, told = logging.getLogger("numbanet"), logging.handlers.BufferingHandler(9)
    told.setLevel(logging.INFO)
    output = Output(verbose=is_verbose)
    with output.logged(), output.telling(told):
        log.debug("found")
        log.info("compiled")
    assert capsys.readouterr().err == said
    assert [each.msg for each in told.buffer] == ["compiled"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_commands_and_options(command, shell):
    pytest.importorskip("shtab", reason="needs shtab")
    code, out, _ = command("completion", shell)
    assert code == 0
    for word in ("learn-image", "compile", "--batch-size" if shell != "tcsh" else "batch-size"):
        assert word in out


def test_completion_without_shtab(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = command("completion", "bash")
    assert code == 1
    assert 'pip install "numbanet[completion]"' in err
