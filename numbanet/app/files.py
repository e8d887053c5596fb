"""Failures to write files, told in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numbanet.app.errors import AppError
from numbanet.atomic_file import replace_file


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes `path`: an OSError becomes an AppError that names it."""
    try:
        yield
    except OSError as error:
        raise AppError(f"cannot write '{path}': {error.strerror or error}") from error


def write_file(path: Path, content: bytes | memoryview) -> None:
    """Put all of `content` into the place of a file, or raise an AppError and change nothing."""
    with writing(path):
        replace_file(path, content)
