"""Files that hold a trained model: safetensors with the config inside.

A safetensors file is a JSON header and raw numbers, so loading one never executes code. A file is
replaced as a whole or not at all.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy

from numbanet.atomic_file import replace_file
from numbanet.regular_file import open_regular

FORMAT = "numbanet"
VERSION = 1
DTYPE, BYTES = "F32", "U8"
OF_BYTES = ("codes",)  # tensors of bytes; all others are float32
MOST_BYTES = 1 << 36
HEADER_BYTES = 1 << 24  # JSON takes 50 times as much memory as its text, if it is made to


class SnapshotError(ValueError):
    """The file is no usable snapshot."""


def write_snapshot(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]
) -> None:
    """Write tensors and a JSON header; replaces an existing file as replace_file does.

    Raises:
        OSError: the file cannot be written.
        TypeError: the header is not JSON.
        ValueError: the header is larger than those that are read.
    """
    try:
        text = json.dumps(header)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"metadata: no JSON ({error!s:.200}); use numbers, strings, lists and dicts"
        ) from error
    if len(text) > HEADER_BYTES:
        raise ValueError(
            f"metadata: {len(text)} bytes of JSON, with the config; use up to {HEADER_BYTES}"
        )
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "header": text,
        "sha256": digest(tensors, text),
    }
    replace_file(path, safetensors.numpy.save(dict(tensors), metadata))


@dataclass(frozen=True)
class OpenSnapshot:
    """Open snapshot: its header, and names, types and shapes of its tensors."""

    name: str  # for messages
    header: dict[str, Any]
    _metadata: dict[str, str]
    _file: Any

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; () if there is none of this name."""
        stored = name in set(self._file.keys())
        return tuple(self._file.get_slice(name).get_shape()) if stored else ()

    def tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """Read the tensors, if they are exactly these; else nothing is allocated.

        Raises:
            SnapshotError: they are not, or the checksum does not fit.
        """
        stored = set(self._file.keys())
        for name in sorted(stored - shapes.keys()):
            raise SnapshotError(f"{self.name}: has a tensor {name!r:.80} that is not expected")
        for name, shape in shapes.items():
            what, dtype = "missing", BYTES if name in OF_BYTES else DTYPE
            if name in stored:
                part = self._file.get_slice(name)
                what = f"{part.get_dtype()}{part.get_shape()}"
            if what != f"{dtype}{list(shape)}":
                raise SnapshotError(
                    f"{self.name}: tensor {name!r} is {what:.200}, expected {dtype}{list(shape)}"
                )
        tensors = {name: self._file.get_tensor(name) for name in shapes}
        if self._metadata.get("sha256") != digest(tensors, self._metadata["header"]):
            raise SnapshotError(f"{self.name}: the snapshot is damaged (its checksum does not fit)")
        return tensors


@contextmanager
def open_snapshot(path: str | os.PathLike) -> Iterator[OpenSnapshot]:
    """Read the header of a snapshot.

    Raises:
        SnapshotError: the file is damaged, or something else.
        OSError: the file cannot be read, is no regular file, or has more than 64 GiB.
    """
    open_regular(path, MOST_BYTES).close()
    name = os.fsdecode(path)
    try:
        file = safetensors.safe_open(name, framework="numpy")
    except safetensors.SafetensorError as error:
        raise SnapshotError(
            f"{name}: no safetensors file, or a damaged one ({error!s:.200})"
        ) from error
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), name) from error
    with file:
        metadata = file.metadata() or {}
        yield OpenSnapshot(name, _header(name, metadata), metadata, file)


def _header(name: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    if metadata.get("format") != FORMAT:
        raise SnapshotError(f"{name}: a safetensors file, but not a snapshot of numbanet")
    text = metadata.get("header", "")
    if len(text) > HEADER_BYTES:
        raise SnapshotError(f"{name}: a header of {len(text)} bytes, expected up to {HEADER_BYTES}")
    try:
        version, header = int(metadata["version"]), json.loads(text)
    except (KeyError, ValueError, RecursionError) as error:
        raise SnapshotError(f"{name}: the snapshot's header is damaged ({error!s:.200})") from error
    if version < 1 or not isinstance(header, dict):
        raise SnapshotError(f"{name}: the snapshot's header is damaged")
    if version > VERSION:
        raise SnapshotError(
            f"{name}: written in version {metadata['version']:.20} of the format, and this "
            f"numbanet reads up to {VERSION}; update numbanet"
        )
    return header


def check_finite(name: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise SnapshotError if numbers are infinite or NaN."""
    for which, values in tensors.items():
        n = values.size - np.count_nonzero(np.isfinite(values))
        if n:
            raise SnapshotError(
                f"{name}: {n} numbers of {which} are infinite or NaN; allow_nonfinite=True takes "
                "them as they are"
            )


def digest(tensors: Mapping[str, np.ndarray], header: str) -> str:
    """Checksum of the numbers and the header."""
    total = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        total.update(np.ascontiguousarray(tensor).data)
    return total.hexdigest()
