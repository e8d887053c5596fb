"""Files of one flat vector of parameters."""

import io
import os
from collections.abc import Sized
from pathlib import Path
from typing import cast

import numpy as np

from numbanet.array_types import ArrayLike
from numbanet.arrays import as_host_vector
from numbanet.atomic_file import replace_file
from numbanet.snapshot import SnapshotError, check_finite
from numbanet.tcnn_snapshot import (
    DTYPES,
    Source,
    as_float32,
    content_of,
    import_msgpack,
    snapshot_of,
)

STORED = {dtype.name: dtype for dtype in DTYPES.values()}
NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def load_params(
    source: Source, dtype: str | None = None, *, allow_nonfinite: bool = False
) -> np.ndarray:
    """Read a flat vector of parameters, float32 [n_params]; nothing in it is executed.

    Reads `.npy` files and snapshots of tiny-cuda-nn and instant-ngp, whatever their names are.

    Args:
        source: a path, or the bytes of a file.
        dtype: "float32" or "float16" if the source is raw little-endian numbers of that type,
            which nothing else tells.
        allow_nonfinite: take numbers that are infinite or NaN.

    Raises:
        SnapshotError: the file is damaged, or something else.
        OSError: the file cannot be read, is no regular file, or has more than 16 GiB.
        ImportError: the file is MessagePack, and msgpack is not installed.
    """
    content, name = content_of(source)
    params = _params(content, dtype, name)
    if not allow_nonfinite:
        check_finite(name, {"params": params})
    return params


def _params(content: bytes, dtype: str | None, name: str) -> np.ndarray:
    if dtype is not None:
        return _raw(content, _stored(dtype), name)
    if content.startswith(np.lib.format.MAGIC_PREFIX):
        return _npy(content, name)
    header_bytes = int.from_bytes(content[:8], "little")
    if content[8:9] == b"{" and header_bytes <= len(content) - 8:
        raise SnapshotError(f"{name}: a safetensors file; use numbanet.load for our snapshots")
    return snapshot_of(content, name).params


def save_params(path: str | os.PathLike[str], params: ArrayLike, dtype: str = "float32") -> None:
    """Write a flat vector of parameters; replaces an existing file as `Trainer.save` does.

    Args:
        path: its suffix says how: `.npy`, `.bin` (raw little-endian numbers), or `.msgpack` (a
            snapshot for tiny-cuda-nn).
        params: real numbers [n_params].
        dtype: "float32" or "float16".

    Raises:
        ValueError: another suffix or dtype, or a number that float16 cannot hold.
        OSError: the file cannot be written; what was there before is still there.
        ImportError: the file is MessagePack, and msgpack is not installed.
    """
    stored, suffix = _stored(dtype), Path(os.fsdecode(path)).suffix.lower()
    if suffix not in WRITERS:
        raise ValueError(f"path: suffix {suffix!r} is not known; use one of {', '.join(WRITERS)}")
    params = as_host_vector(params, "params", len(cast(Sized, params)))
    with np.errstate(over="ignore"):
        values = params.astype(stored)
    if np.isinf(values).sum() != np.isinf(params).sum():
        largest = np.abs(params[np.isfinite(params)]).max()
        raise ValueError(f"params: float16 cannot hold {largest:g}; use dtype='float32'")
    replace_file(path, WRITERS[suffix](values))


def _stored(dtype: str) -> np.dtype:
    if not isinstance(dtype, str) or dtype not in STORED:
        raise ValueError(f"dtype: {dtype!r} is not allowed; use one of {', '.join(STORED)}")
    return STORED[dtype]


def _raw(content: bytes, dtype: np.dtype, name: str) -> np.ndarray:
    if len(content) % dtype.itemsize:
        raise SnapshotError(f"{name}: {len(content)} bytes are no whole number of {dtype.name}")
    return as_float32(np.frombuffer(content, dtype))


def _npy(content: bytes, name: str) -> np.ndarray:
    # np.load would allocate what the header asks for before it looks whether the data is there.
    file = io.BytesIO(content)
    try:
        shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the header is a Python literal, which fails in many ways
        raise SnapshotError(
            f"{name}: damaged .npy file, or of a version other than 1.0 and 2.0 ({error!s:.200})"
        ) from error
    if len(shape) != 1 or dtype.kind != "f":
        raise SnapshotError(
            f"{name}: an array {dtype}{list(shape)}, expected one dimension of floating-point "
            "numbers"
        )
    data = content[file.tell() :]
    if len(data) != shape[0] * dtype.itemsize:
        raise SnapshotError(
            f"{name}: {len(data)} bytes of numbers, and the header of the .npy file says "
            f"{shape[0]} x {dtype.itemsize}"
        )
    return as_float32(np.frombuffer(data, dtype))


def _npy_file(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _message(values: np.ndarray) -> bytes:
    return import_msgpack().packb(
        {
            "n_params": values.size,
            "params_type": next(kind for kind, dtype in DTYPES.items() if dtype == values.dtype),
            "params_binary": values.tobytes(),
        }
    )


WRITERS = {".npy": _npy_file, ".bin": np.ndarray.tobytes, ".msgpack": _message}
