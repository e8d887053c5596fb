"""Checks and conversions of the values that a user gives a command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.errors import UsageError
from numbanet.shown import shown


def check_number(name: str, value: Any, least: int, limit: int = 2**31) -> int:
    """Return the value as an int; raises UsageError unless it is an integer of this range."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and least <= value < limit):
        raise UsageError(f"{name}: {shown(value)} is not allowed; use {least} to {limit - 1}")
    return int(value)


def read_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    try:
        return numbanet.load_config(config)
    except OSError as error:
        raise UsageError(f"cannot read '{error.filename}': {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
