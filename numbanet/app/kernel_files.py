"""`numbanet cache`: contents of the cache of compiled kernels, and their removal."""

from collections.abc import Iterator
from pathlib import Path

from numbanet.app.errors import AppError
from numbanet.code_store import (
    MOST_BYTES,
    UNUSED_DAYS,
    clear,
    directory,
    size,
    sizes_by_kind,
    why_not_used,
)

KINDS = {
    "cpu": "kernels for the CPU",
    "ptx": "kernels for CUDA",
    "cubin": "the same, assembled",
    "ir": "device functions for CUDA, which new kernels are made of",
}


def show() -> Iterator[str]:
    """Lines on the cache: its directory, its entries by kind, and when they are removed."""
    path = directory()
    yield f"{path}: {summary(path)}"
    reason = why_not_used(path)
    if reason is not None:
        yield f"not used: {reason}"
    for kind, meaning in KINDS.items():
        n, n_bytes = sizes_by_kind(path).get(kind, (0, 0))
        yield f"{n:8}  {megabytes(n_bytes):>10}  {meaning}"
    yield (
        f"removed after {UNUSED_DAYS} days without use, and above {megabytes(MOST_BYTES)} in all, "
        "those first that were not used for longest"
    )


def figures() -> dict[str, object]:
    """Figures on the cache, for a program."""
    path = directory()
    kinds = sizes_by_kind(path)
    return {
        "directory": str(path),
        "not_used": why_not_used(path),
        "kernels": {kind: kinds.get(kind, (0, 0))[0] for kind in KINDS},
        "bytes": {kind: kinds.get(kind, (0, 0))[1] for kind in KINDS},
    }


def remove_all() -> str:
    """Remove all compiled code, and report how much it was.

    Raises:
        AppError: some of it cannot be removed.
    """
    path = directory()
    n, n_bytes = clear(path)
    remaining, _ = size(path)
    if remaining:
        raise AppError(f"{remaining} kernels in '{path}' could not be removed")
    return f"{path}: removed {counted(n)}, {megabytes(n_bytes)}"


def summary(path: Path) -> str:
    n, n_bytes = size(path)
    return f"{counted(n)}, {megabytes(n_bytes)}"


def counted(n: int) -> str:
    return f"{n} kernel{'' if n == 1 else 's'}"


def megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
