"""Files of others: written here by hand as their authors' programs write them."""

import gzip
import io
import json
import math
import os
import sys
import zlib

import hypothesis.extra.numpy as numpy_strategies
import models
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanet
from numbanet import SnapshotError

msgpack = pytest.importorskip("msgpack")

DTYPES = {"float32": "<f4", "float16": "<f2"}
TYPES = {"float32": "float", "float16": "__half"}
VALUES = np.array([1, -0.5, 65504, 2**-24, 0, -0.0], np.float32)  # float16 holds them all

# {"n_params": 2, "params_type": "__half", "params_binary": 1.0 and -2.0}
GOLDEN = b"\x83\xa8n_params\x02\xabparams_type\xa6__half\xadparams_binary\xc4\x04\x00\x3c\x00\xc0"


def snapshot(params, dtype="float16", **others):
    return {
        "n_params": len(params),
        "params_type": TYPES[dtype],
        "params_binary": np.asarray(params).astype(DTYPES[dtype]).tobytes(),
        **others,
    }


def as_json(data):
    def encode(value):
        return {"bytes": list(value), "subtype": None}

    return json.dumps(data, default=encode).encode()


FORMATS = {
    "msgpack": msgpack.packb,
    "json": as_json,
    "zlib": lambda data: zlib.compress(msgpack.packb(data)),
    "gzip": lambda data: gzip.compress(msgpack.packb(data)),
    "compressed json": lambda data: zlib.compress(as_json(data), 1),
}


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# Reading parameters


def test_the_golden_snapshot():
    params = numbanet.load_params(GOLDEN)
    assert params.dtype == np.float32
    np.testing.assert_array_equal(params, [1, -2])
    found = numbanet.read_tcnn_snapshot(GOLDEN)
    assert found.config == {}
    assert found.optimizer is None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("encode", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("source", ["path", "str", "bytes", "bytearray", "memoryview"])
def test_snapshots_of_tiny_cuda_nn(tmp_path, encode, dtype, source):
    content = encode(snapshot(VALUES, dtype))
    (tmp_path / "file").write_bytes(content)
    sources = {
        "path": tmp_path / "file",
        "str": str(tmp_path / "file"),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
    }
    assert same_bits(numbanet.load_params(sources[source]), VALUES)


@pytest.mark.parametrize("encode", FORMATS.values(), ids=FORMATS)
def test_snapshots_of_instant_ngp(encode):
    sections = {
        "loss": {"otype": "L2"},
        "optimizer": {"otype": "Adam", "learning_rate": 0.01},
        "encoding": {"otype": "HashGrid"},
        "network": {"otype": "FullyFusedMLP"},
    }
    others = {"parent": "base.json", "rgb_network": {"otype": "FullyFusedMLP"}}
    inner = snapshot(VALUES, version=1, mode="image", density_grid_binary=b"\0" * 8, aabb=[[0, 1]])
    found = numbanet.read_tcnn_snapshot(encode({**sections, **others, "snapshot": inner}))
    assert same_bits(found.params, VALUES)
    assert found.config == sections


@pytest.mark.parametrize("dtype", DTYPES)
def test_old_snapshots_do_not_say_their_type(dtype):
    data = snapshot(VALUES, dtype)
    del data["params_type"]
    assert same_bits(numbanet.load_params(msgpack.packb(data)), VALUES)


@given(
    numpy_strategies.arrays(np.uint16, st.integers(0, 20)),
    st.sampled_from(sorted(FORMATS)),
)
def test_every_half_keeps_its_value(bits, encoding):
    halves = bits.view("<f2")
    source = FORMATS[encoding](snapshot(halves))
    params = numbanet.load_params(source, allow_nonfinite=True)
    np.testing.assert_array_equal(params, halves.astype(np.float64))


# Flat vectors


@given(
    numpy_strategies.arrays(np.uint32, st.integers(0, 20)),
    st.sampled_from([".npy", ".bin", ".msgpack"]),
)
def test_float32_round_trip_keeps_every_bit(tmp_path_factory, bits, suffix):
    params = bits.view(np.float32)
    path = tmp_path_factory.mktemp("params") / f"params{suffix}"
    numbanet.save_params(path, params)
    dtype = "float32" if suffix == ".bin" else None
    assert same_bits(numbanet.load_params(path, dtype, allow_nonfinite=True), params)
    if not np.isfinite(params).all():
        with pytest.raises(SnapshotError, match="numbers of params are infinite or NaN"):
            numbanet.load_params(path, dtype)


@given(
    numpy_strategies.arrays(
        np.float32, st.integers(0, 20), elements=st.floats(-65504, 65504, width=32)
    ),
    st.sampled_from([".npy", ".bin", ".msgpack"]),
)
def test_float16_round_trip_rounds_once(tmp_path_factory, params, suffix):
    path = tmp_path_factory.mktemp("params") / f"params{suffix}"
    numbanet.save_params(path, params, "float16")
    loaded = numbanet.load_params(path, "float16" if suffix == ".bin" else None)
    assert same_bits(loaded, params.astype(np.float16).astype(np.float32))


def test_what_is_written_is_what_others_expect(tmp_path):
    for suffix in (".npy", ".bin", ".msgpack"):
        numbanet.save_params(tmp_path / f"params{suffix}", [1.0, -2.0], "float16")
    halves = np.array([1, -2], "<f2")
    assert (tmp_path / "params.msgpack").read_bytes() == GOLDEN
    assert (tmp_path / "params.bin").read_bytes() == halves.tobytes()
    assert same_bits(np.load(tmp_path / "params.npy"), halves)


@pytest.mark.parametrize("dtype", ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"])
def test_npy_of_any_floating_point_type(dtype):
    file = io.BytesIO()
    np.save(file, VALUES.astype(dtype))
    assert same_bits(numbanet.load_params(file.getvalue()), VALUES)


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    path = tmp_path / "params.npy"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="70000"):
        numbanet.save_params(path, [1.0, -70000.0, math.inf], "float16")
    assert path.read_bytes() == b"old"
    numbanet.save_params(path, [1.0, -math.inf, math.nan], "float16")
    loaded = numbanet.load_params(path, allow_nonfinite=True)
    np.testing.assert_array_equal(loaded, [1, -math.inf, math.nan])


@pytest.mark.parametrize("dtype", ["float64", "int32", "", 3])
def test_other_types_are_refused(tmp_path, dtype):
    with pytest.raises(ValueError, match="float16"):
        numbanet.save_params(tmp_path / "params.npy", VALUES, dtype)
    with pytest.raises(ValueError, match="float16"):
        numbanet.load_params(b"", dtype)


@pytest.mark.parametrize("name", ["params", "params.json", "params.pt", "params.safetensors"])
def test_other_suffixes_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="msgpack"):
        numbanet.save_params(tmp_path / name, VALUES)
    assert not list(tmp_path.iterdir())


def test_params_must_be_a_vector(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        numbanet.save_params(tmp_path / "params.npy", VALUES[None])
    with pytest.raises(TypeError, match="real"):
        numbanet.save_params(tmp_path / "params.npy", ["a"])


# Refusing files


def npy(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def npy_header(text, version=b"\x01\x00"):
    text = text.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


GOOD = snapshot(VALUES)
BAD_FILES = {
    "empty": b"",
    "text": b"hello",
    "zeros": b"\0" * 100,
    "pickle": b"\x80\x04K\x01.",
    "pickled dict": b"\x80\x04}\x94.",
    "zip": b"PK\x03\x04" + b"\0" * 100,
    "safetensors": (2).to_bytes(8, "little") + b"{}",
    "json list": b"[1]",
    "json end": b'{"n_params": 1',
    "json deep": b'{"a":' + b"[" * 200_000,
    "json latin": b'{"a": "\xff"}',
    "json long number": b'{"n_params": ' + b"9" * 10_000 + b"}",
    "empty json": b"{}",
    "empty map": b"\x80",
    "no params": msgpack.packb({"n_params": 3, "params_type": "float"}),
    "snapshot is a number": msgpack.packb({"snapshot": 3}),
    "snapshot is empty": msgpack.packb({"snapshot": {}}),
    "truncated": msgpack.packb(GOOD)[:-1],
    "longer": msgpack.packb(GOOD) + b"\0",
    "number as key": msgpack.packb({1: 2}),
    "list as key": b"\x81\x91\x01\x01",
    "unused byte": b"\x81\xa1a\xc1",
    "deep": b"\x81\xa1a" + b"\x91" * 100_000,
    "huge lists": b"\x81\xa1a" + b"\xdd\xff\xff\xff\xff" * 500,
    "long list": msgpack.packb({**GOOD, "more": [0] * 100_000}),
    "huge maps": b"\x81\xa1a" + b"\xdf\xff\xff\xff\xff" * 500,
    "huge binary": b"\x81\xa1a\xc6\xff\xff\xff\xff" + b"\0" * 100,
    "bad zlib": zlib.compress(msgpack.packb(GOOD))[:-1],
    "zlib checksum": zlib.compress(msgpack.packb(GOOD))[:-1] + b"\0",
    "longer zlib": zlib.compress(msgpack.packb(GOOD)) + b"\0",
    "zlib of nothing": zlib.compress(b""),
    "zlib twice": zlib.compress(zlib.compress(msgpack.packb(GOOD))),
    "bad gzip": gzip.compress(msgpack.packb(GOOD))[:20],
    "npy": b"\x93NUMPY",
    "npy 9": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (0,)}", b"\x09\x00"),
    "npy code": npy_header("__import__('os').system('false')"),
    "npy matrix": npy(np.zeros((2, 2), np.float32)),
    "npy scalar": npy(np.float32(3)),
    "npy integers": npy(np.arange(4)),
    "npy objects": npy(np.array([{}], object)),
    "npy records": npy(np.zeros(3, "f4,f4")),
    "npy end": npy(VALUES)[:-1],
    "npy longer": npy(VALUES) + b"\0",
    "npy huge": npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,)}"),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "file.msgpack"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(SnapshotError) as caught:
            numbanet.load_params(source)
        assert len(str(caught.value)) < 600
    with pytest.raises(SnapshotError, match=path.name):
        numbanet.load_params(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_params": 5},
        {"n_params": 7},
        {"n_params": -6},
        {"n_params": 6.0},
        {"n_params": None},
        {"n_params": "6"},
        {"n_params": True},
        {"params_type": "double"},
        {"params_type": 3},
        {"params_type": ["float"]},
        {"params_type": "float"},
        {"params_type": None, "params_binary": b"\0" * 18},
        {"params_binary": None},
        {"params_binary": "text"},
        {"params_binary": b""},
        {"params_binary": {}},
        {"params_binary": {"bytes": "text"}},
        {"params_binary": {"bytes": [256] * 12}},
        {"params_binary": {"bytes": [-1] * 12}},
        {"params_binary": {"bytes": [0.5] * 12}},
        {"params_binary": {"bytes": [0] * 11}},
        {"params_binary": [0] * 12},
    ],
    ids=str,
)
@pytest.mark.parametrize("encode", [msgpack.packb, as_json], ids=["msgpack", "json"])
def test_wrong_entries_are_refused(encode, changes):
    with pytest.raises(SnapshotError):
        numbanet.load_params(encode({**GOOD, **changes}))


def test_raw_numbers_must_be_whole():
    with pytest.raises(SnapshotError, match="float32"):
        numbanet.load_params(b"\0" * 6, "float32")


@pytest.mark.parametrize("wbits", [15, 31], ids=["zlib", "gzip"])
def test_a_zip_bomb_is_refused(wbits):
    packer = zlib.compressobj(wbits=wbits)
    megabyte = b"\0" * (1 << 20)
    content = b"".join(packer.compress(megabyte) for _ in range(80)) + packer.flush()
    with pytest.raises(SnapshotError, match="unpack"):
        numbanet.load_params(content)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x83", b"\xde", b"{", b"\x93NUMPY\x01\0"]))
def test_random_bytes_are_refused(content, start):
    with pytest.raises(SnapshotError):
        numbanet.load_params(start + content)


@given(st.data(), st.sampled_from(sorted(FORMATS)))
def test_a_damaged_byte_changes_numbers_or_is_refused(data, encoding):
    content = bytearray(FORMATS[encoding](GOOD))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        params = numbanet.load_params(bytes(content))
    except SnapshotError:
        return
    assert params.shape in (VALUES.shape, (len(VALUES) // 2,))


def test_missing_files_and_other_objects(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        numbanet.load_params(tmp_path / "absent")
    with pytest.raises(OSError, match=tmp_path.name):
        numbanet.load_params(tmp_path)
    with pytest.raises(TypeError, match="dict"):
        numbanet.load_params({})


def test_without_msgpack_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(ImportError, match=r"numbanet\[snapshots\]"):
        numbanet.load_params(GOLDEN)
    with pytest.raises(ImportError, match=r"numbanet\[snapshots\]"):
        numbanet.save_params(tmp_path / "params.msgpack", VALUES)
    assert same_bits(numbanet.load_params(as_json(GOOD)), VALUES)


# Restoring trainers


def adam_state(n, **changes):
    rng = np.random.default_rng(3)
    state = {
        "current_step": 7,
        "base_learning_rate": 0.0625,
        "first_moments_binary": rng.normal(size=n).astype("<f4").tobytes(),
        "second_moments_binary": rng.random(n).astype("<f4").tobytes(),
        "param_steps_binary": rng.integers(0, 8, n).astype("<u4").tobytes(),
        **changes,
    }
    return {key: value for key, value in state.items() if value is not ...}


def everything(trainer):
    return (
        trainer.network.params.copy(),
        trainer.optimizer_state.copy(),
        trainer.n_steps,
        trainer.optimizer,
    )


def trained(name="hash", n_steps=2):
    trainer = models.create(name).trainer
    for k in range(n_steps):
        trainer.training_step(*models.batch_of(name, 20, k))
    return trainer


def read(trainer, optimizer=None, encode=msgpack.packb):
    """A snapshot of as many parameters as the trainer has."""
    params = np.random.default_rng(2).normal(size=trainer.network.n_params)
    others = {} if optimizer is None else {"optimizer": optimizer}
    return numbanet.read_tcnn_snapshot(encode(snapshot(params, "float32", **others)))


@pytest.mark.parametrize("encode", [msgpack.packb, as_json], ids=["msgpack", "json"])
def test_restoring_with_the_state_of_adam(encode):
    trainer = trained()
    state = adam_state(trainer.network.n_params)
    found = read(trainer, state, encode)
    found.restore(trainer)
    assert same_bits(trainer.network.params, found.params)
    moments = [np.frombuffer(state[f"{k}_moments_binary"], "<f4") for k in ("first", "second")]
    steps = np.frombuffer(state["param_steps_binary"], "<u4")
    np.testing.assert_array_equal(trainer.optimizer_state, [*moments, steps])
    assert trainer.n_steps == 7
    assert trainer.learning_rate == 0.0625
    assert np.isfinite(float(trainer.training_step(*models.batch_of("hash", 20))))


def test_restoring_our_own_state_goes_on_bit_for_bit():
    """Adam's state through their format and back: training does not notice."""
    first, second = trained(n_steps=4), trained(n_steps=1)
    m, v, k = first.optimizer_state
    state = {
        "current_step": first.n_steps,
        "base_learning_rate": first.learning_rate,
        "first_moments_binary": m.tobytes(),
        "second_moments_binary": v.tobytes(),
        "param_steps_binary": k.astype("<u4").tobytes(),
    }
    content = msgpack.packb(snapshot(first.network.params, "float32", optimizer=state))
    numbanet.read_tcnn_snapshot(content).restore(second)
    for trainer in (first, second):
        trainer.training_step(*models.batch_of("hash", 20, 9))
    assert same_bits(first.network.params, second.network.params)
    assert same_bits(first.optimizer_state, second.optimizer_state)


def test_old_states_without_steps_count_from_zero():
    trainer = trained()
    read(trainer, adam_state(trainer.network.n_params, param_steps_binary=...)).restore(trainer)
    assert not trainer.optimizer_state[2].any()
    assert trainer.optimizer_state[:2].any(axis=1).all()


def test_wrappers_around_adam_are_looked_through():
    trainer = trained()
    state = adam_state(trainer.network.n_params)
    decay = {"learning_rate": 0.1, "learning_rate_factor": 1.0, "nested": state}
    wrapped = {"weights_ema_binary": b"", "nested": decay}
    with pytest.warns(UserWarning, match="2 optimizers"):
        read(trainer, wrapped).restore(trainer)
    assert trainer.n_steps == 7
    moments = np.frombuffer(state["first_moments_binary"], "<f4")
    np.testing.assert_array_equal(trainer.optimizer_state[0], moments)


@pytest.mark.parametrize(
    "state",
    [
        {"current_step": 4, "learning_rate": 0.1},
        {"current_step": 4, "first_moments": b"", "per_layer_second_moments": b""},
        {"nested": [{}, {}]},
        {},
        3,
    ],
    ids=str,
)
def test_other_states_are_left_out_with_a_warning(state):
    trainer = trained()
    found, optimizer = read(trainer, state), trainer.optimizer
    with pytest.warns(UserWarning, match="left out"):
        found.restore(trainer)
    assert same_bits(trainer.network.params, found.params)
    assert not trainer.optimizer_state.any()
    assert trainer.n_steps == 0
    assert trainer.optimizer == optimizer


def test_adam_into_another_optimizer_warns():
    trainer = trained("one_blob")  # SGD
    found = read(trainer, adam_state(trainer.network.n_params))
    with pytest.warns(UserWarning, match="only Adam"):
        found.restore(trainer)
    assert same_bits(trainer.network.params, found.params)


def test_without_a_state_the_optimizer_starts_anew():
    trainer = trained()
    assert trainer.optimizer_state.any()
    found = read(trainer)
    found.restore(trainer)
    assert same_bits(trainer.network.params, found.params)
    assert not trainer.optimizer_state.any()
    assert trainer.n_steps == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"current_step": -1},
        {"current_step": 1.5},
        {"current_step": 2**31},
        {"current_step": ...},
        {"base_learning_rate": -0.5},
        {"base_learning_rate": math.nan},
        {"base_learning_rate": "fast"},
        {"base_learning_rate": ...},
        {"first_moments_binary": b"\0" * 8},
        {"first_moments_binary": 3},
        {"second_moments_binary": {"bytes": [0]}},
        {"param_steps_binary": b""},
        {"param_steps_binary": None},
        "negative",
        "infinite",
    ],
    ids=str,
)
def test_damaged_states_change_nothing(changes):
    trainer = trained()
    n = trainer.network.n_params
    bad = {"negative": ("second", -1), "infinite": ("first", math.inf)}
    if isinstance(changes, str):
        which, value = bad[changes]
        changes = {f"{which}_moments_binary": np.full(n, value, "<f4").tobytes()}
    found = read(trainer, adam_state(n, **changes))
    before = everything(trainer)
    with pytest.raises(SnapshotError):
        found.restore(trainer)
    for a, b in zip(before, everything(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_learning_rate_of_400_digits_is_refused():
    trainer = trained()
    found = read(trainer, adam_state(trainer.network.n_params, base_learning_rate=10**400), as_json)
    with pytest.raises(SnapshotError, match="base_learning_rate") as caught:
        found.restore(trainer)
    assert len(str(caught.value)) < 400


def test_parameters_that_are_not_finite_are_refused_unless_asked_for():
    trainer = trained()
    n = trainer.network.n_params
    before = everything(trainer)
    for value in (np.nan, np.inf, -np.inf):
        params = np.zeros(n, np.float32)
        params[n // 2] = value
        source = msgpack.packb(snapshot(params, "float32"))
        with pytest.raises(SnapshotError, match="1 numbers of params are infinite or NaN"):
            numbanet.read_tcnn_snapshot(source)
        found = numbanet.read_tcnn_snapshot(source, allow_nonfinite=True)
        with pytest.raises(SnapshotError, match="1 numbers of params are infinite or NaN"):
            found.restore(trainer)
        for a, b in zip(before, everything(trainer), strict=True):
            np.testing.assert_array_equal(a, b)
    found.restore(trainer, allow_nonfinite=True)
    assert same_bits(trainer.network.params, params)


@pytest.mark.parametrize("optimizer", [{"otype": "EMA"}, {"otype": "Shampoo"}], ids=str)
def test_an_optimizer_that_starts_anew_goes_on_as_a_new_one(optimizer):
    """Its averages and statistics are those of the parameters in the file."""
    n_input_dims, n_output_dims, config = models.MODELS["hash"]
    config = {**config, "optimizer": optimizer}
    old, new = (
        numbanet.create_from_config(n_input_dims, n_output_dims, config, device="cpu")
        for _ in range(2)
    )
    for k in range(2):
        old.trainer.training_step(*models.batch_of("hash", 20, k))
    found = read(new.trainer)
    for model in (old, new):
        found.restore(model.trainer)
    assert same_bits(old.trainer.inference_params, found.params)
    for model in (old, new):
        model.trainer.training_step(*models.batch_of("hash", 20, 5))
    assert same_bits(old.network.params, new.network.params)
    assert same_bits(old.trainer.inference_params, new.trainer.inference_params)
    assert same_bits(old.trainer.optimizer_state, new.trainer.optimizer_state)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero"):
        for read_file in (numbanet.read_tcnn_snapshot, numbanet.load_params):
            with pytest.raises(OSError, match="not a regular file but a"):
                read_file(path)


def test_another_number_of_parameters_is_refused():
    trainer = trained()
    before = everything(trainer)
    with pytest.raises(SnapshotError, match=str(trainer.network.n_params)):
        numbanet.read_tcnn_snapshot(GOLDEN).restore(trainer)
    for a, b in zip(before, everything(trainer), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_from_a_file_of_instant_ngp():
    """The config in the file makes the model, and the model predicts what the other one did."""
    n_input_dims, n_output_dims, config = models.MODELS["hash"]
    trainer = trained()
    content = zlib.compress(
        msgpack.packb({**config, "snapshot": snapshot(trainer.network.params, "float32")})
    )
    found = numbanet.read_tcnn_snapshot(content)
    model = numbanet.create_from_config(n_input_dims, n_output_dims, found.config, device="cpu")
    found.restore(model.trainer)
    x, _ = models.batch_of("hash", 30)
    np.testing.assert_array_equal(model(x), trainer.network(x))
