"""Files that hold a trained model: safetensors with the config inside.

A safetensors file is a JSON header and raw numbers, so loading one never executes code. A file is
replaced as a whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from numbanet.atomic_file import replace_file

FORMAT = "numbanet"
VERSION = 1


class SnapshotError(ValueError):
    """A file that is no usable snapshot."""


def write_snapshot(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header; an existing file is replaced only when all is written.

    Raises:
        OSError: the file cannot be written.
        TypeError: the header is not JSON.
    """
    text = json.dumps(header)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "header": text,
        "sha256": digest(tensors, text),
    }
    content = safetensors.numpy.save(dict(tensors), metadata)
    replace_file(path, content)


def read_snapshot(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and header of a snapshot.

    Raises:
        SnapshotError: the file is damaged, or something else.
        OSError: the file cannot be read.
    """
    Path(path).open("rb").close()  # an OSError that names the file, where it cannot be read
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise SnapshotError(f"{path}: no safetensors file, or a damaged one ({error})") from error
    if metadata.get("format") != FORMAT:
        raise SnapshotError(f"{path}: a safetensors file, but not a snapshot of numbanet")
    try:
        version, header = int(metadata["version"]), json.loads(metadata["header"])
    except (KeyError, ValueError) as error:
        raise SnapshotError(f"{path}: the snapshot's header is damaged ({error})") from error
    if version < 1 or not isinstance(header, dict):
        raise SnapshotError(f"{path}: the snapshot's header is damaged")
    if version > VERSION:
        raise SnapshotError(
            f"{path}: written in version {version} of the format, and this numbanet reads up to "
            f"{VERSION}; update numbanet"
        )
    if metadata.get("sha256") != digest(tensors, metadata["header"]):
        raise SnapshotError(f"{path}: the snapshot is damaged (its checksum does not fit)")
    return tensors, header


def digest(tensors: Mapping[str, np.ndarray], header: str) -> str:
    """A checksum of the numbers and the header."""
    total = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        total.update(np.ascontiguousarray(tensor).data)
    return total.hexdigest()
