"""Snapshots of trainings: parameters, the optimizer's state, the config, and users' metadata."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from numbanet.model_arguments import check_bool
from numbanet.quantization import packed, quantize
from numbanet.saved_training import SavedTraining, config_of, meaning_of_state, open_saved_training
from numbanet.shown import joined, shown
from numbanet.snapshot import SnapshotError, write_snapshot


def save_training(
    trainer: Any, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None,
    for_inference: bool = False,
) -> None:  # fmt: skip
    """Write a trainer's snapshot; see TrainableModel.save."""
    if not isinstance(metadata, Mapping | None):
        raise TypeError(f"metadata: expected a dict, got {shown(metadata)}")
    network = trainer.network
    header = {
        "n_input_dims": network.n_input_dims,
        "n_output_dims": network.n_output_dims,
        "config": trainer.config(),
        "n_steps": 0 if for_inference else trainer.n_steps,
        "n_skipped_steps": 0 if for_inference else trainer.n_skipped_steps,
        "metadata": dict(metadata or {}),
    }
    if not for_inference and trainer.perturbation is not None:
        header["noise_state"] = trainer.perturbation.state
    if check_bool("for_inference", for_inference):
        header["for_inference"] = True
    tensors = inference_tensors(trainer) if for_inference else trainer.tensors()
    with trainer.comm.first_alone(f"the snapshot {shown(str(path))}") as is_first:
        if is_first:
            write_snapshot(path, tensors, header)


def inference_tensors(trainer: Any) -> dict[str, np.ndarray]:
    """Parameters for inference; tables in few bits as codes and scales."""
    network, averaged = trainer.network, trainer.averaged_params
    own = averaged is None  # then all ranks ask for them
    values = network.parameters.to_host() if own else network.target.to_host(averaged)
    quantized = network.quantized
    return packed(quantize(values, quantized), quantized)


def load_training(
    trainer: Any, path: str | os.PathLike[str], *, allow_nonfinite: bool = False
) -> dict[str, Any]:
    """Restore a trainer from a snapshot, to continue it; see TrainableModel.load."""
    with open_saved_training(path) as (saved, file):
        check_same(file.name, saved, trainer)
        tensors = file.tensors(saved.tensor_shapes)
        saved.check_numbers(file.name, tensors, allow_nonfinite)
    trainer.restore(saved, saved.completed(tensors))
    return saved.metadata


def check_same(name: str, saved: SavedTraining, trainer: Any) -> None:
    """Raise SnapshotError unless a snapshot fits a trainer's model and optimizer."""
    theirs = config_of(saved.composition, saved.loss, saved.optimizer)
    network, mine = trainer.network, trainer.config()
    pairs: dict[str, tuple[Any, Any]] = {
        "n_input_dims": (saved.composition.n_input_dims, network.n_input_dims),
        "n_output_dims": (saved.composition.n_output_dims, network.n_output_dims),
    }
    for section in ("encoding", "network", "parts", "outputs"):
        if section in theirs or section in mine:
            pairs[f"the {section}"] = theirs.get(section), mine.get(section)
    pairs["the optimizer"] = saved.optimizer.structure, trainer.optimizer.structure
    for what, (found, expected) in pairs.items():
        if found != expected:
            option, theirs, mine = first_difference(what, found, expected)
            raise SnapshotError(
                f"{name}: {option} is {theirs!s:.200}, and the trainer's is {mine!s:.200}"
            )
    theirs, mine = (meaning_of_state(each.optimizer, trainer.layout) for each in (saved, trainer))
    if theirs != mine:
        raise SnapshotError(
            f"{name}: the optimizer's options ask for another state than the trainer's has: "
            f"{saved.tensor_shapes}"
        )


def first_difference(what: str, found: Any, expected: Any) -> tuple[str, Any, Any]:
    """Name and values of the first option in which two configs differ."""
    if not (isinstance(found, Mapping) and isinstance(expected, Mapping)):
        return what, found, expected
    keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
    if "otype" in keys:
        keys = ["otype"]
    return first_difference(joined(what, keys[0]), found.get(keys[0]), expected.get(keys[0]))
