"""Checks and conversions of the values that a user gives a command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import numbanet
from numbanet.app.errors import UsageError


def check_number(name: str, value: int, least: int, limit: int = 2**31) -> None:
    if not isinstance(value, (int, np.integer)) or not least <= value < limit:
        raise UsageError(f"{name}: {value!r} is not allowed; use {least} to {limit - 1}")


def read_config(config: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    try:
        return numbanet.load_config(config)
    except OSError as error:
        raise UsageError(f"cannot read '{error.filename}': {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
