"""Snapshots: headers of other content with a checksum that fits, and damaged files."""

from pathlib import Path

import numpy as np

import numbanet
from fuzz.campaign import Format
from fuzz.formats.config_dicts import config
from fuzz.mutations import damaged, mutated
from numbanet.snapshot import SnapshotError, write_snapshot
from numbanet.unknown_options import UnknownOptionWarning

DIMS = (3, 3)


def generate(rng) -> tuple:
    """A config that can be used, the header of a snapshot of it, and the seed of damage."""
    usable = config(rng)
    if usable["optimizer"]["otype"] == "Composite":  # its parts fit no model
        usable["optimizer"] = {"otype": "Adam"}
    header = {
        "n_input_dims": DIMS[0],
        "n_output_dims": DIMS[1],
        "config": usable,
        "n_steps": 7,
        "n_skipped_steps": 1,
        "metadata": {"name": "mine"},
    }
    is_damaged = rng.random() < 0.3
    return usable, header if is_damaged else mutated(rng, header), is_damaged, rng.integers(2**32)


def everything(trainer) -> list:
    arrays = [np.array(array) for array in trainer.tensors().values()]
    return [*arrays, trainer.n_steps, trainer.n_skipped_steps, trainer.optimizer, trainer.loss]


def load(case: tuple, folder: Path) -> None:
    """Load it as a new model, and into a trainer, which a refusal leaves as it was."""
    usable, header, is_damaged, seed = case
    file = folder / "snapshot"
    model = numbanet.create_from_config(*DIMS, usable, device="cpu")
    trainer = model.trainer
    try:
        write_snapshot(file, trainer.tensors(), header)
    except (TypeError, ValueError):  # what JSON cannot hold, or too much of it
        return
    if is_damaged:
        file.write_bytes(damaged(np.random.default_rng(seed), file.read_bytes()))
    before = everything(trainer)
    try:
        model.load(file)
    except SnapshotError:
        for old, new in zip(before, everything(trainer), strict=True):
            assert np.array_equal(old, new), "a refused snapshot changed the trainer"
    again = numbanet.load(file, device="cpu").trainer
    shapes = [array.shape for array in again.tensors().values()]
    assert sum(map(np.prod, shapes)) * 4 <= file.stat().st_size


FORMAT = Format("snapshots", generate, load, (SnapshotError,), (UnknownOptionWarning,))
