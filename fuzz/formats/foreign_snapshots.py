"""Snapshots of tiny-cuda-nn and instant-ngp: MessagePack and JSON, compressed or not."""

import gzip
import json
import zlib
from functools import cache
from pathlib import Path

import msgpack
import numpy as np

import numbanet
from fuzz.campaign import Format
from fuzz.formats.config_dicts import config
from fuzz.formats.snapshots import everything
from fuzz.mutations import choice, damaged, mutated
from numbanet.snapshot import SnapshotError

CONFIG = {
    "optimizer": {"otype": "Adam"},
    "encoding": {"otype": "Identity"},
    "network": {"otype": "CutlassMLP", "n_neurons": 2, "n_hidden_layers": 1},
}


@cache
def trainer() -> numbanet.Trainer:
    return numbanet.create_from_config(2, 1, CONFIG, device="cpu").trainer


def as_json(value) -> bytes:
    return json.dumps(value, default=lambda each: {"bytes": list(each), "subtype": None}).encode()


def generate(rng) -> bytes:
    n_params = trainer().network.n_params
    numbers = rng.random((5, n_params), np.float32)
    optimizer = {
        "current_step": 5,
        "base_learning_rate": 0.01,
        "first_moments_binary": numbers[0].tobytes(),
        "second_moments_binary": numbers[1].tobytes(),
        "param_steps_binary": np.arange(n_params, dtype=np.uint32).tobytes(),
    }
    dtype, name = choice(rng, [(np.float16, "__half"), (np.float32, "float")])
    snapshot = {
        "n_params": n_params,
        "params_type": name,
        "params_binary": numbers[2].astype(dtype).tobytes(),
        "optimizer": choice(rng, (optimizer, {"nested": optimizer}, None, {"current_step": 3})),
    }
    if rng.random() < 0.5:
        snapshot = {**config(rng), "snapshot": snapshot}
    plain = choice(rng, (msgpack.packb, as_json))
    packed = choice(rng, (bytes, bytes, zlib.compress, gzip.compress))
    try:
        content = plain(mutated(rng, snapshot))
    except (ValueError, TypeError, OverflowError, RecursionError):  # what no such file can hold
        content = plain(snapshot)
    if rng.random() < 0.3:
        content = damaged(rng, content)
    content = packed(content)
    return damaged(rng, content) if rng.random() < 0.1 else content


def load(content: bytes, folder: Path) -> None:
    """Read it, and give it to a trainer, which a refusal leaves as it was."""
    file = folder / "foreign"
    file.write_bytes(content)
    before = everything(trainer())
    try:
        found = numbanet.read_tcnn_snapshot(file)
        found.restore(trainer())
    except SnapshotError:
        for old, new in zip(before, everything(trainer()), strict=True):
            assert np.array_equal(old, new), "a refused snapshot changed the trainer"
        raise
    assert np.array_equal(numbanet.load_params(file), trainer().network.params)


FORMAT = Format("foreign_snapshots", generate, load, (SnapshotError,), (UserWarning,))
