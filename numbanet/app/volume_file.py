"""Scalar volumes and time series of them from .npy files, checked and scaled to [0, 1]."""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.regular_file import check_regular

MOST_VALUES = 1 << 30
MOST_ALONG = 1 << 20
KINDS = "biuf"  # of dtypes: real numbers


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume [z, y, x], or a time series [t, z, y, x] of volumes.

    Args:
        name: of the file.
        values: float32 in [0, 1].
        low, high: the numbers of the file that 0 and 1 stand for.
        n_bytes: of the array in the file.
    """

    name: str
    values: np.ndarray
    low: float
    high: float
    n_bytes: int

    note = ""

    @property
    def n_dims(self) -> int:
        return self.values.ndim

    @cached_property
    def digest(self) -> str:
        """Digest of shape and values, whatever the dtype."""
        total = sha256(np.array(self.values.shape).astype("<i8").tobytes())
        total.update(np.array([self.low, self.high]).astype("<f8").tobytes())
        total.update(np.ascontiguousarray(self.values, "<f4").data)
        return total.hexdigest()


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read an .npy file of 3 or 4 dimensions; nothing in it is executed.

    Raises:
        UsageError: it cannot be read, is no such array, or has numbers that are infinite or none.
    """
    path = Path(path)
    try:
        check_regular(os.stat(path).st_mode, str(path))
        array = np.load(path, mmap_mode="r")
    except OSError as error:
        raise UsageError(f"cannot read '{path}': {error.strerror or error}") from error
    except Exception as error:  # the reader may fail in any way on unchecked input
        reason = " ".join(f"{error}".split())
        raise UsageError(f"'{path}' is no .npy file of numbers: {reason:.120}") from error
    if not isinstance(array, np.ndarray):  # an archive of several
        raise UsageError(f"'{path}' is no .npy file but an archive; save one array of it")
    return volume_of(path, array)


def volume_of(path: Path, array: np.ndarray) -> Volume:
    """Volume of an array, checked and scaled."""
    if array.dtype.kind not in KINDS:
        raise UsageError(f"'{path}': its numbers are {array.dtype}; use real ones")
    if array.ndim not in (3, 4):
        raise UsageError(f"'{path}' has the shape {array.shape}; use [z, y, x] or [t, z, y, x]")
    if not 1 <= array.size <= MOST_VALUES or max(array.shape) > MOST_ALONG:
        raise UsageError(f"'{path}' has the shape {array.shape}; use 1 to {MOST_VALUES} numbers")
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):  # one NaN makes both NaN
        raise UsageError(f"'{path}': there are values that are infinite or no numbers")
    if not math.isfinite(high - low):
        raise UsageError(f"'{path}': its values, from {low:g} to {high:g}, lie too far apart")
    values = np.empty(array.shape, np.float32)
    for k, part in enumerate(array):  # float64 for a part at a time
        values[k] = (part.astype(np.float64) - low) / ((high - low) or 1.0)
    return Volume(path.name, values, low, high, array.nbytes)
