"""Numbers in a file that nobody has checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.shown import shown


def number(where: Mapping[str, Any], name: str, path: Path, default: float | None) -> float | None:
    """Finite number of an option, or the default if it is missing."""
    value = where.get(name)
    if value is None:
        return default
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) <= 1e9:
        raise UsageError(f"'{path}': {name}: {shown(value)} is not allowed; use a number")
    return float(value)


def numbers_of(value: Any) -> np.ndarray:
    """Array of an option, float64; empty if it does not consist of numbers."""
    try:
        found = np.array(value)
    except ValueError:  # rows of several lengths
        return np.zeros(0)
    return found.astype(np.float64) if found.dtype.kind in "iuf" else np.zeros(0)
