"""Writing of files; failures become one-line errors."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numbanet.app.errors import AppError
from numbanet.atomic_file import replace_file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context for writing `path`: an OSError becomes an AppError that names it."""
    try:
        yield
    except OSError as error:
        raise AppError(f"cannot write '{path}': {error.strerror or error}") from error


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file by `content`, or raise an AppError and leave it unchanged."""
    with writing(path):
        replace_file(path, content)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON; see write_file, and finite."""
    write_file(path, json.dumps(finite(value), indent=2, allow_nan=False).encode())


def finite(value: Any) -> Any:
    """Value with None in place of infinities and NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
