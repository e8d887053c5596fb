"""Entries of the cache of compiled code: damaged, under another name, or not even files.

Some are then asked for by the kernel that they are of, which is a small one.
"""

import os
import shutil
from functools import cache
from pathlib import Path

import numpy as np

from fuzz.campaign import Format
from fuzz.mutations import choice, damaged
from numbanet import code_store
from numbanet.kernel_cache import compile_cached

PLACES = ("file",) * 12 + ("open to all", "folder", "FIFO", "link to itself", "nothing")
COMPILED = 0.02  # the share of cases in which the kernel is called
TEXT = b".version 9.0\n.target sm_90\n" * 20


class Refused(Exception):
    """What is there is not used."""


def call() -> float:
    """A function whose compiled code is not in memory yet."""

    def double(x):
        return x + x

    return compile_cached(double)(1.5)


@cache
def entries(folder: Path) -> dict[Path, bytes]:
    """Entries as they are written, the first of which is that of the function."""
    os.environ["NUMBANET_CACHE_DIR"] = str(folder)
    call()
    (own,) = folder.glob("*.cpu")
    for suffix in ("ptx", "cubin"):
        code_store.write(code_store.path_of("kernel", suffix, (1,)), {"kernel": "k"}, TEXT)
    return {path: path.read_bytes() for path in (own, *folder.glob("kernel-*"))}


def generate(rng) -> tuple[int, str, float, bool, np.random.Generator]:
    """Which entry, what is in its place, how its content is made, whether the kernel is called."""
    is_called = rng.random() < COMPILED
    which = 0 if is_called else int(rng.integers(3))
    return which, choice(rng, PLACES), rng.random(), is_called, rng


def put(path: Path, place: str, content: bytes) -> None:
    """Put something where an entry belongs."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    match place:
        case "folder":
            path.mkdir()
        case "FIFO":
            os.mkfifo(path)
        case "link to itself":
            path.symlink_to(path)
        case "file" | "open to all":
            path.write_bytes(content)
            path.chmod(0o600 if place == "file" else 0o666)


def read(case: tuple, folder: Path) -> None:
    """Nothing but what was written is found; the kernel gives the right result in any case."""
    which, place, share, is_called, rng = case
    known = entries(folder / "kernels")
    path = list(known)[which]
    whole = known[path]
    if share < 0.1:
        content = whole
    else:
        content = known[choice(rng, list(known))] if share < 0.2 else damaged(rng, whole)
    put(path, place, content)
    found = code_store.read(path)
    is_whole = place == "file" and content == whole
    assert (found is not None) == is_whole, "what was not written is used, or what was is not"
    if is_called:
        assert call() == 3.0, "a wrong result"
        if place != "folder":
            assert code_store.read(path) is not None, "the entry was not replaced"
            known[path] = path.read_bytes()  # with other names in it
    if not is_whole:
        raise Refused(f"{place} in the place of an entry")


FORMAT = Format("cache_entries", generate, read, (Refused,))
