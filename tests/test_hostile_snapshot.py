"""Snapshots made to do harm, with a checksum that fits: refused before anything is allocated."""

import copy
import json
import os
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import numbanet
from numbanet import SnapshotError
from numbanet.snapshot import write_snapshot

SGD = {"otype": "SGD"}
ADAM = {"otype": "Adam"}
CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "EMA", "nested": SGD},
    "encoding": {"otype": "Identity"},
    "network": {"otype": "CutlassMLP", "n_neurons": 4, "n_hidden_layers": 1},
}
N_PARAMS = 128  # 16 -> 4 -> 16
HEADER = {
    "n_input_dims": 2,
    "n_output_dims": 1,
    "config": CONFIG,
    "n_steps": 3,
    "n_skipped_steps": 0,
    "metadata": {"name": "mine"},
}


def create(optimizer=None):
    config = {**CONFIG, "optimizer": optimizer or CONFIG["optimizer"]}
    return numbanet.create_from_config(2, 1, config, device="cpu")


def tensors_of(n_state=1, fill=0.5):
    return {
        "params": np.full(N_PARAMS, fill, np.float32),
        "optimizer.state": np.full((n_state, N_PARAMS), fill, np.float32),
    }


def everything(trainer):
    copies = trainer.network.params.copy(), trainer.optimizer_state.copy()
    return *copies, trainer.n_steps, trainer.n_skipped_steps, trainer.config()


@pytest.fixture
def snapshot(tmp_path):
    """A function that writes a snapshot with a right checksum."""

    def write(tensors=None, config=None, **changes):
        header = {**HEADER, **changes}
        header["config"] = {**CONFIG, **(config or {})}
        path = tmp_path / "hostile"
        write_snapshot(path, tensors or tensors_of(), header)
        return path

    return write


def assert_refused(path, match=None, optimizer=None):
    """Both ways of loading refuse the file, in a short message, and leave a trainer as it was."""
    model = create(optimizer)
    before = everything(model.trainer)
    for load in (lambda: numbanet.load(path, device="cpu"), lambda: model.load(path)):
        with pytest.raises(SnapshotError, match=match) as caught:
            load()
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 1000
    for a, b in zip(before, everything(model.trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_these_tests_write_snapshots_that_can_be_used(snapshot):
    model = create()
    assert model.load(snapshot()) == {"name": "mine"}
    assert model.trainer.n_steps == 3
    assert (model.network.params == 0.5).all()
    assert (numbanet.load(snapshot(), device="cpu").trainer.optimizer_state == 0.5).all()


# The optimizer of the file


def ema(nested):
    return {"otype": "EMA", "nested": nested}


def composite(*sizes):
    nested = [{**SGD, "n_params_to_optimize": size} for size in sizes]
    return {"otype": "Composite", "nested": nested}


@pytest.mark.parametrize(
    ("mine", "theirs", "n_state"),
    [
        (ema(SGD), ema(ADAM), 4),
        (ema(SGD), ema(ADAM), 1),
        (ema(ADAM), ema(SGD), 4),
        (ema(SGD), {"otype": "Average", "n_samples": 1000000, "nested": SGD}, 3),
        (
            {"otype": "Average", "n_samples": 2, "nested": SGD},
            {"otype": "Average", "n_samples": 1000000, "nested": SGD},
            3,
        ),
        (
            {"otype": "Average", "n_samples": 2, "nested": SGD},
            {"otype": "Average", "n_samples": 3, "nested": SGD},
            3,
        ),
        # the same sizes, but another meaning
        (ema(SGD), {"otype": "Batched", "nested": SGD}, 1),
        (ema(ema(SGD)), ema({"otype": "Batched", "nested": SGD}), 2),
        (composite(64, 64), composite(64, 32, 32), 0),
        (composite(64, 64), composite(64, 65), 0),
        (composite(64, 64), composite(64), 0),
        (composite(64, 64), composite(64, 64, 2**40), 0),
        (composite(64, 64), ema(composite(64, 64)), 1),
        (ema(composite(64, 64)), ema(composite(128)), 1),
        ({"otype": "Shampoo"}, {"otype": "Shampoo", "cg_on_momentum": False}, 4),
    ],
    ids=str,
)
def test_another_optimizer_is_refused_through_all_nestings(snapshot, mine, theirs, n_state):
    """Not every one of these is hostile by itself, but none goes on where the trainer was."""
    model = create(mine)
    before = everything(model.trainer)
    with pytest.raises(SnapshotError, match="hostile"):
        model.load(snapshot(tensors_of(n_state), {"optimizer": theirs}))
    for a, b in zip(before, everything(model.trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_other_options_of_the_same_optimizer_are_taken(snapshot):
    model = create(ema({**SGD, "learning_rate": 0.5}))
    theirs = {"otype": "EMA", "decay": 0.5, "nested": {**SGD, "learning_rate": 0.25}}
    model.load(snapshot(config={"optimizer": theirs}))
    assert model.trainer.optimizer.decay == 0.5
    assert model.trainer.learning_rate == 0.25


def test_a_change_that_gives_the_state_another_meaning_is_refused():
    """The same check guards changes of options by hand."""
    trainer = create(ema(ema(SGD))).trainer
    with pytest.raises(numbanet.ConfigError, match="state's size or meaning"):
        trainer.update_hyperparams({"optimizer": {"nested": {"otype": "Batched", "nested": SGD}}})


# Sizes


def option(section, **options):
    return {section: {**CONFIG[section], **options}}


HOSTILE_CONFIGS = [
    option("optimizer", otype="Average", n_samples=2**24 - 1),
    option("optimizer", otype="Average", n_samples=2**62),
    option("network", n_neurons=10**12),
    option("network", n_neurons=2**31),
    option("network", n_hidden_layers=10**6),
    option("network", n_hidden_layers=2**31),
    option("encoding", otype="OneBlob", n_bins=2**40),
    option("encoding", otype="Frequency", n_frequencies=2**40),
    option("encoding", otype="HashGrid", log2_hashmap_size=40),
    option("encoding", otype="HashGrid", base_resolution=2**31),
    option("encoding", otype="HashGrid", n_levels=10**9),
    option("encoding", otype="DenseGrid", base_resolution=2**20, per_level_scale=1e38),
    option("encoding", otype="HashGrid", per_level_scale=1e-39),
    option("encoding", otype="HashGrid", n_features_per_level=2**40),
    option("optimizer", otype="SGD", learning_rate=10**400),
    option("optimizer", nested={**SGD, "learning_rate": 10**400}),
    option("loss", otype="\ud800"),
    option("encoding", otype="\udfff"),
]


@pytest.mark.parametrize("config", HOSTILE_CONFIGS, ids=lambda config: str(config)[:60])
def test_sizes_beyond_the_tensors_cost_neither_memory_nor_time(snapshot, config):
    path = snapshot(config=config)
    tracemalloc.start()
    try:
        assert_refused(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", ["n_input_dims", "n_output_dims", "n_steps", "n_skipped_steps"])
@pytest.mark.parametrize(
    "value", [-1, 2**31, 2**62, 10**400, 1.5, True, None, "3", [], {}], ids=str
)
def test_counts_beyond_what_can_be_are_refused(snapshot, key, value):
    if key == "n_input_dims" and value is True:
        value = False
    assert_refused(snapshot(**{key: value}))


def test_the_largest_number_of_steps_is_one_that_can_be_made(snapshot):
    model = numbanet.load(snapshot(n_steps=2**31 - 3), device="cpu")
    model.trainer.training_step(np.zeros((4, 2)), np.zeros((4, 1)))
    assert model.trainer.n_steps == 2**31 - 2
    assert np.isfinite(model.trainer.inference_params).all()
    with pytest.raises(ValueError, match="n_steps: 2147483646 steps were made, and no more"):
        model.trainer.training_step(np.zeros((4, 2)), np.zeros((4, 1)))
    with pytest.raises(ValueError, match="n_steps"):
        model.trainer.n_steps = 2**31


def test_many_nested_optimizers_are_refused(snapshot):
    optimizer = SGD
    for _ in range(200):
        optimizer = ema(optimizer)
    assert_refused(snapshot(config={"optimizer": optimizer}))


@pytest.mark.parametrize("change", ["more", "fewer", "renamed", "transposed"])
def test_other_tensors_are_refused(snapshot, change):
    tensors = tensors_of()
    if change == "more":
        tensors["optimizer.matrices"] = np.zeros((1, 3), np.float32)
    if change == "fewer":
        del tensors["optimizer.state"]
    if change == "renamed":
        tensors["\u0000" * 1000] = tensors.pop("params")
    if change == "transposed":
        tensors["optimizer.state"] = tensors["optimizer.state"].T.copy()
    assert_refused(snapshot(tensors))


# Numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["params", "optimizer.state"])
def test_parameters_that_are_not_finite_are_refused_unless_asked_for(snapshot, name, value):
    """With EMA the state holds the parameters for inference."""
    tensors = tensors_of()
    tensors[name].reshape(-1)[7] = value
    path = snapshot(tensors)
    assert_refused(path, f"1 numbers of {name} are infinite or NaN; allow_nonfinite=True")
    loaded = numbanet.load(path, device="cpu", allow_nonfinite=True)
    model = create()
    model.load(path, allow_nonfinite=True)
    for each in (loaded, model):
        np.testing.assert_array_equal(each.network.params, tensors["params"])
        np.testing.assert_array_equal(each.trainer.optimizer_state, tensors["optimizer.state"])


@pytest.mark.parametrize("otype", ["Adam", "Novograd", "Shampoo", "Lookahead", "Batched"])
def test_so_is_every_state_that_is_not_finite(tmp_path, otype):
    """Or the next step would make parameters of it."""
    config = {**CONFIG, "optimizer": {"otype": otype}}
    model = numbanet.create_from_config(2, 1, config, device="cpu")
    trainer = model.trainer
    names = [name for name, array in trainer.tensors().items() if name != "params" and array.size]
    assert names
    for name in names:
        array = trainer.tensors()[name].reshape(-1)
        array[-1], before = np.nan, array[-1]
        model.save(tmp_path / "snapshot")
        array[-1] = before
        with pytest.raises(SnapshotError, match=f"1 numbers of {name} are infinite or NaN"):
            model.load(tmp_path / "snapshot")


# The file


def parts(path):
    """The JSON of a safetensors file, and the raw numbers after it."""
    content = path.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def rewrite(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


DEEP = 10_000
TEXTS = {
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "many digits": '{"n_steps": ' + "9" * 5000 + "}",
    "digits in a config": json.dumps(HEADER).replace(
        '"n_neurons": 4', '"n_neurons": ' + "9" * 5000
    ),
    "surrogates": json.dumps({**HEADER, "config": {**CONFIG, "loss": {"otype": "\ud800\udbff"}}}),
    "no object": "[]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_header_that_no_parser_likes_is_refused(snapshot, text):
    path = snapshot()
    header, data = parts(path)
    header["__metadata__"]["header"] = text
    rewrite(path, header, data)
    assert_refused(path)


@pytest.mark.parametrize("version", ["9" * 5000, "9" * 4000, "1e3", "\ud800", "-1"], ids=len)
def test_a_version_that_is_no_number_is_refused(snapshot, version):
    path = snapshot()
    header, data = parts(path)
    header["__metadata__"]["version"] = version
    rewrite(path, header, data)
    assert_refused(path)


def test_a_large_header_is_neither_written_nor_read(snapshot, monkeypatch):
    path = snapshot(metadata={"text": "a" * 5000})
    content = path.read_bytes()
    monkeypatch.setattr("numbanet.snapshot.HEADER_BYTES", 5000)
    assert_refused(path, "header")
    with pytest.raises(ValueError, match="metadata"):
        create().save(path, {"text": "b" * 5000})
    assert path.read_bytes() == content


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64", "I32", "U8", "BOOL", "F8_E5M2", "C64"])
def test_tensors_of_other_types_are_refused(snapshot, dtype):
    path = snapshot()
    header, _ = parts(path)
    size = {"BF16": 2, "F16": 2, "F64": 8, "I32": 4, "C64": 8}.get(dtype, 1)
    end = 0
    for name in ("params", "optimizer.state"):
        header[name]["dtype"] = dtype
        header[name]["data_offsets"] = [end, end + size * N_PARAMS]
        end += size * N_PARAMS
    rewrite(path, header, b"\0" * end)
    assert_refused(path)


@pytest.mark.parametrize("shape", [[2**62, 4], [-1], ["a"], [[]], None, [N_PARAMS / 2, 2], [2] * 7])
@pytest.mark.parametrize("offsets", [None, [0, 2**62], [N_PARAMS * 4, 0], [0], [-4, 508], [4, 516]])
def test_shapes_and_places_that_cannot_be_are_refused(snapshot, shape, offsets):
    path = snapshot()
    header, data = parts(path)
    header["params"]["shape"] = shape
    if offsets is not None:
        header["params"]["data_offsets"] = offsets
    rewrite(path, header, data)
    assert_refused(path)


@pytest.mark.parametrize(
    "text", [b"[" * 99999, b"\xff" * 100, b'{"__metadata__": ' + b"{" * 999, b"{" * 16, b"null"]
)
def test_json_that_is_none_is_refused(snapshot, text):
    path = snapshot()
    rewrite(path, text, parts(path)[1])
    assert_refused(path)


def test_only_regular_files_of_a_limited_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    model = create()
    with open(tmp_path / "huge", "wb") as file:
        file.truncate((1 << 36) + 1)  # takes no room on the disk
    for path, reason in (
        (tmp_path / "fifo", "not a regular file but a FIFO"),
        ("/dev/zero", "not a regular file but a character device"),
        (tmp_path / "huge", "larger than"),
    ):
        for load in (numbanet.load, model.load):
            with pytest.raises(OSError, match=reason):
                load(path)


# Whatever else


def leaves(value, path=()):
    """Paths of everything inside of JSON."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, key))


HEADERS = [
    {**HEADER, "config": {**CONFIG, "optimizer": optimizer}}
    for optimizer in (
        ema(SGD),
        {"otype": "Average", "n_samples": 2, "nested": ADAM},
        composite(64, 64),
        {"otype": "Shampoo"},
        {"otype": "ExponentialDecay", "nested": {"otype": "Lookahead", "nested": ADAM}},
    )
] + [
    {**HEADER, "config": {**CONFIG, "encoding": encoding}}
    for encoding in (
        {"otype": "HashGrid", "n_levels": 1, "log2_hashmap_size": 4, "base_resolution": 4},
        {"otype": "Composite", "nested": [{"otype": "OneBlob", "n_dims_to_encode": 1}, ADAM]},
    )
]
NUMBERS = [-1, 0, 1, 2, 3, 1e-39, 0.5, 2**24, 2**31, 2**63, 10**12, 1e308, 10**400, True]
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
)
VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from([None, "", "\ud800", "Adam", "EMA", "HashGrid", [], {}, [SGD], ADAM, ema(SGD)]),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=4,
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_change_of_the_config_is_refused_or_fits_the_tensors(tmp_path_factory, data):
    """Options of all kinds replaced, with a checksum that fits."""
    header = json.loads(json.dumps(data.draw(st.sampled_from(HEADERS))))
    for _ in range(data.draw(st.integers(1, 3))):
        *outer, last = data.draw(st.sampled_from(sorted(leaves(header), key=str)))
        inner = header
        for key in outer:
            inner = inner[key]
        inner[last] = copy.deepcopy(data.draw(VALUES))
    path = tmp_path_factory.mktemp("hostile") / "file"
    write_snapshot(path, tensors_of(data.draw(st.sampled_from([0, 1, 2, 4]))), header)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", numbanet.UnknownOptionWarning)
        try:
            loaded = numbanet.load(path, device="cpu")
        except SnapshotError:
            return
    assert loaded.network.n_params == N_PARAMS
    assert loaded.trainer.optimizer_state.shape[0] == loaded.optimizer.n_state
    again = create(header["config"]["optimizer"]).trainer
    before = everything(again)
    try:
        again.load(path)
    except SnapshotError:
        for a, b in zip(before, everything(again), strict=True):
            np.testing.assert_array_equal(a, b)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_damage_is_noticed(tmp_path_factory, data):
    """Flipped bits, cut and repeated pieces."""
    path = tmp_path_factory.mktemp("damaged") / "file"
    write_snapshot(path, tensors_of(), HEADER)
    content = bytearray(path.read_bytes())
    original = bytes(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start, stop = sorted(data.draw(st.integers(0, len(content))) for _ in range(2))
        what = data.draw(st.sampled_from(["flip", "cut", "repeat", "zero"]))
        if what == "flip" and start < len(content):
            content[start] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del content[start:stop]
        elif what == "repeat":
            content[start:start] = content[start:stop]
        elif what == "zero":
            content[start:stop] = bytes(stop - start)
    path.write_bytes(content)
    model = create()
    before = everything(model.trainer)
    try:
        model.load(path)
    except SnapshotError:
        for a, b in zip(before, everything(model.trainer), strict=True):
            np.testing.assert_array_equal(a, b)
    else:  # all that may differ is the space between the header and the numbers
        header, numbers = parts(path)
        path.write_bytes(original)
        assert (header, numbers) == parts(path)
