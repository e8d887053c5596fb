"""Validation of arrays of any library, once, at the boundary."""

import math
from typing import Any

import numpy as np


def as_host_matrix(value: Any, name: str, n_columns: int, n_rows: int | None = None) -> np.ndarray:
    """Convert to a float32 array [n_rows, n_columns] in C order, copied only if necessary.

    Accepts NumPy arrays, anything with `__dlpack__` or `__array__`, and nested lists.

    Raises:
        TypeError: it is no array of real numbers, or it lies on a GPU.
        ValueError: its shape is wrong.
    """
    array = _as_numpy(value, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name}: expected real numbers, got dtype {array.dtype}; convert it to float32"
        )
    expected = f"[{'batch' if n_rows is None else n_rows}, {n_columns}]"
    if array.ndim != 2 or array.shape[1] != n_columns:
        raise ValueError(f"{name}: expected shape {expected}, got {list(array.shape)}")
    if n_rows is not None and array.shape[0] != n_rows:
        raise ValueError(
            f"{name}: expected shape {expected} as the inputs have, got {list(array.shape)}"
        )
    # Kernels are compiled for aligned and writable arrays only.
    with np.errstate(over="ignore"):
        return np.require(array, np.float32, ["C", "A", "W"])


def as_host_vector(value: Any, name: str, n: int) -> np.ndarray:
    """Convert to a float32 array [n], copied only if necessary.

    Raises:
        TypeError: it is no array of real numbers, or it lies on a GPU.
        ValueError: its shape is wrong.
    """
    array = _as_numpy(value, name)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected shape [{n}], got {list(array.shape)}")
    return as_host_matrix(array.reshape(1, -1), name, n, 1).reshape(-1)


def as_host_array(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Convert to a float32 array of that shape, copied only if necessary.

    Raises:
        TypeError: it is no array of real numbers, or it lies on a GPU.
        ValueError: its shape is wrong.
    """
    array = _as_numpy(value, name)
    check_shape(array.shape, name, shape)
    size = math.prod(shape)
    return as_host_matrix(array.reshape(1, size), name, size, 1).reshape(shape)


def check_shape(found: tuple[int, ...], name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the shapes are equal."""
    if tuple(found) != tuple(shape):
        raise ValueError(f"{name}: expected shape {list(shape)}, got {list(found)}")


def as_host_output(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array itself, if it is float32, of that shape, and can be written in place.

    Raises:
        TypeError: it is no float32 NumPy array.
        ValueError: its shape or layout is wrong.
    """
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise TypeError(f"{name}: expected a float32 NumPy array to write to, got {value!r:.80}")
    if value.shape != tuple(shape) or not value.flags.carray:
        raise ValueError(
            f"{name}: expected a writable C-order array of shape {list(shape)}, got "
            f"{list(value.shape)} with strides {list(value.strides)}"
        )
    return value


def _as_numpy(value: Any, name: str) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: masked arrays are not allowed; fill or drop the masked values")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if hasattr(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{name}: the array lies on a GPU and the model on the CPU; copy it to the host first"
        )
    if hasattr(value, "__dlpack__"):
        try:
            return np.from_dlpack(value)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise TypeError(
                f"{name}: NumPy cannot take this {type(value).__name__} through DLPack ({error}); "
                "give a float32 array in host memory that needs no gradient"
            ) from error
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name}: expected an array, got {type(value).__name__} ({error})"
        ) from error


def next_multiple(n: int, divisor: int) -> int:
    """Smallest multiple of `divisor` that is at least n."""
    return -(-n // divisor) * divisor
