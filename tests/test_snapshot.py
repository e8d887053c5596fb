"""Snapshots: what is loaded goes on exactly where it was saved, and nothing else is loaded."""

import json
import struct

import models
import numpy as np
import pytest
from full_disk import full_disk

import numbanet
from numbanet import SnapshotError

NAME = "hash"


def train(model, n_steps, first=0, name=NAME):
    return [
        float(model.trainer.training_step(*models.batch_of(name, 100, k)))
        for k in range(first, first + n_steps)
    ]


def everything(model):
    """What training depends on and produces."""
    trainer = model.trainer
    return model.network.params, trainer.optimizer_state, trainer.n_steps, trainer.n_skipped_steps


def assert_same(first, second):
    for a, b in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def saved(tmp_path):
    """A snapshot after 5 steps, and the model that it is of."""
    model = models.create(NAME)
    train(model, 5)
    path = tmp_path / "model.safetensors"
    model.save(path, metadata={"name": "image", "steps": [1, 2], "nested": {"psnr": 31.5}})
    return path, model


@pytest.mark.parametrize("name", [NAME, "one_blob", "biased"])
@pytest.mark.parametrize("into", ["new", "existing"])
def test_resumed_training_is_the_same_bit_for_bit(tmp_path, name, into):
    straight = models.create(name)
    losses = train(straight, 10, name=name)
    first = models.create(name)
    train(first, 5, name=name)
    first.save(tmp_path / "half")
    if into == "new":
        second = numbanet.load(tmp_path / "half", device="cpu")
    else:
        second = models.create(name, seed=4)
        train(second, 2, name=name)
        second.load(tmp_path / "half")
    assert_same(first, second)
    assert train(second, 5, first=5, name=name) == losses[5:]
    assert_same(straight, second)


def test_loaded_model_is_equal(saved):
    path, model = saved
    loaded = numbanet.load(path, device="cpu")
    assert loaded.metadata == {"name": "image", "steps": [1, 2], "nested": {"psnr": 31.5}}
    assert loaded.trainer.config() == model.trainer.config()
    assert loaded.trainer.optimizer == model.trainer.optimizer
    assert loaded.trainer.loss == model.trainer.loss
    x = models.batch_of(NAME, 40)[0]
    np.testing.assert_array_equal(loaded.network(x), model.network(x))
    assert_same(loaded, model)


def test_changed_learning_rate_is_kept(tmp_path):
    model = models.create(NAME)
    model.trainer.learning_rate = 0.125
    model.save(tmp_path / "snapshot")
    assert numbanet.load(tmp_path / "snapshot", device="cpu").trainer.learning_rate == 0.125


def test_saving_changes_nothing(saved):
    path, model = saved
    before = [np.copy(value) for value in everything(model)]
    model.save(path)
    for a, b in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_paths_may_be_strings(tmp_path):
    model = models.create(NAME)
    model.save(str(tmp_path / "snapshot"))
    assert_same(numbanet.load(str(tmp_path / "snapshot"), device="cpu"), model)


# Failing to save


@pytest.mark.parametrize("n_bytes", [0, 1000])
def test_a_full_disk_leaves_the_old_file(saved, n_bytes):
    path, model = saved
    content = path.read_bytes()
    train(model, 1)
    with full_disk(n_bytes), pytest.raises(OSError):  # noqa: PT011 (its text is the system's)
        model.save(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def deep(n):
    value = {}
    for _ in range(n):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "metadata",
    [{"what": object()}, {("a",): 1}, "name", [1], deep(100_000), {"n": 10**5000}],
    ids=["object", "key", "string", "list", "deep", "digits"],
)
def test_metadata_that_is_no_json_leaves_the_old_file(saved, metadata):
    path, model = saved
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"^metadata: ") as raised:
        model.save(path, metadata)
    assert len(str(raised.value)) < 400
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_saving_into_no_directory_names_the_path(saved):
    path, model = saved
    with pytest.raises(OSError, match="nowhere"):
        model.save(path.parent / "nowhere" / "snapshot")


# Failing to load


def parts(path):
    """The JSON header of a safetensors file, and the raw numbers after it."""
    content = path.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def rewrite(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def own_header(header):
    """The entry of the metadata that holds JSON: the header that numbanet writes itself."""
    return next(key for key, value in header["__metadata__"].items() if value.startswith("{"))


def assert_refused(path, match=None):
    """Neither way of loading accepts the file, and a model is left as it was."""
    model = models.create(NAME)
    train(model, 1)
    before = [np.copy(value) for value in everything(model)]
    with pytest.raises(SnapshotError, match=match) as caught:
        numbanet.load(path, device="cpu")
    assert path.name in str(caught.value)
    with pytest.raises(SnapshotError, match=match):
        model.load(path)
    for a, b in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_snapshot_can_be_rewritten_by_these_tests(saved):
    path, model = saved
    rewrite(path, *parts(path))
    assert_same(numbanet.load(path, device="cpu"), model)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"\xff" * 100,
        b"PNG" * 1000,
        b'{"otype": "Adam"}',
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2**62) + b"{}",
    ],
    ids=["empty", "zeros", "ones", "text", "json", "no tensors", "huge header"],
)
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    assert_refused(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    numpy_files = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "file.safetensors"
    numpy_files.save_file({"params": np.zeros(4, np.float32)}, path)
    assert_refused(path, "numbanet")


@pytest.mark.parametrize("kept", [4, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, kept):
    path, _ = saved
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert_refused(path)


def test_a_longer_file_is_refused(saved):
    path, _ = saved
    path.write_bytes(path.read_bytes() + b"more")
    assert_refused(path)


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9, 1.0])
def test_a_flipped_bit_is_noticed(saved, place):
    path, _ = saved
    header, data = parts(path)
    damaged = bytearray(data)
    damaged[int(place * (len(data) - 1))] ^= 4
    rewrite(path, header, bytes(damaged))
    assert_refused(path)


@pytest.mark.parametrize("version", ["2", "999", "-1", "new", ""])
def test_another_version_is_refused(saved, version):
    path, _ = saved
    header, data = parts(path)
    header["__metadata__"]["version"] = version
    rewrite(path, header, data)
    assert_refused(path)


def test_a_newer_version_says_what_to_do(saved):
    path, _ = saved
    header, data = parts(path)
    header["__metadata__"]["version"] = "999"
    rewrite(path, header, data)
    assert_refused(path, "update numbanet")


def header_paths(value, path=()):
    """Paths of all entries of nested JSON objects."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from header_paths(inner, (*path, key))


def outcome_of_loading(path):
    try:
        numbanet.load(path, device="cpu")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


@pytest.mark.parametrize("wrong", [None, "nonsense", -3, [], {}], ids=str)
def test_a_damaged_header_is_refused(saved, wrong):
    """Each entry of the header in turn: loading never raises anything but SnapshotError.

    Some options of a component accept some of these values, and {} is a config with defaults.
    """
    path, _ = saved
    header, data = parts(path)
    key = own_header(header)
    failures = []
    for entry in header_paths(json.loads(header["__metadata__"][key])):
        damaged = json.loads(header["__metadata__"][key])
        inner = damaged
        for name in entry[:-1]:
            inner = inner[name]
        is_same = inner[entry[-1]] == wrong
        inner[entry[-1]] = wrong
        changed = {**header, "__metadata__": {**header["__metadata__"], key: json.dumps(damaged)}}
        rewrite(path, changed, data)
        outcome = outcome_of_loading(path)
        may_be_accepted = is_same or entry[0] == "metadata" or len(entry) > 1
        if not outcome.startswith("SnapshotError") and not (
            may_be_accepted and outcome == "accepted"
        ):
            failures.append(f"{'.'.join(entry)} = {wrong!r}: {outcome}")
    assert not failures, "\n".join(failures)


def test_a_header_without_an_entry_is_refused(saved):
    path, _ = saved
    header, data = parts(path)
    key = own_header(header)
    original = json.loads(header["__metadata__"][key])
    failures = []
    for entry in original:
        rest = {name: value for name, value in original.items() if name != entry}
        changed = {**header, "__metadata__": {**header["__metadata__"], key: json.dumps(rest)}}
        rewrite(path, changed, data)
        outcome = outcome_of_loading(path)
        if not outcome.startswith("SnapshotError"):
            failures.append(f"{entry}: {outcome}")
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "3"])
def test_a_header_that_is_no_object_is_refused(saved, text):
    path, _ = saved
    header, data = parts(path)
    header["__metadata__"][own_header(header)] = text
    rewrite(path, header, data)
    assert_refused(path)


def test_tensors_of_a_wrong_size_are_refused(saved, tmp_path):
    path, _ = saved
    safetensors = pytest.importorskip("safetensors")
    numpy_files = pytest.importorskip("safetensors.numpy")
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, tensor in tensors.items():
        for wrong in (tensor[..., :-1], tensor.astype(np.float64), tensor[None], None):
            changed = {**tensors, name: wrong}
            if wrong is None:
                del changed[name]
            numpy_files.save_file(changed, tmp_path / "wrong", metadata)
            assert_refused(tmp_path / "wrong")


def test_a_model_of_another_config_is_refused(saved):
    path, _ = saved
    other = models.create("smooth")
    before = other.network.params.copy()
    with pytest.raises(SnapshotError, match=path.name):
        other.load(path)
    np.testing.assert_array_equal(other.network.params, before)


def test_biases_are_those_of_a_model_that_has_them(tmp_path):
    network = models.mlp("FullyFusedMLP", 16, 1, bias=True)
    biased, plain = (
        numbanet.create_from_config(2, 1, models.make_config({}, each), device="cpu")
        for each in (network, {**network, "bias": False})
    )
    for model, other, wrong in ((biased, plain, "True"), (plain, biased, "False")):
        model.save(tmp_path / "saved")
        before = other.network.params.copy()
        with pytest.raises(SnapshotError, match=rf"the network.bias is {wrong}, and"):
            other.load(tmp_path / "saved")
        np.testing.assert_array_equal(other.network.params, before)
    theirs = numbanet.read_tcnn_snapshot(parameters_of(plain, tmp_path))
    with pytest.raises(SnapshotError, match="biases, which tiny-cuda-nn has not"):
        theirs.restore(biased.trainer)


def parameters_of(model, tmp_path):
    """A file of tiny-cuda-nn with a model's parameters."""
    path = tmp_path / "params.msgpack"
    numbanet.save_params(path, model.network.params)
    return path


def test_no_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        numbanet.load(tmp_path / "absent")
    with pytest.raises((OSError, SnapshotError), match=tmp_path.name):
        numbanet.load(tmp_path)
