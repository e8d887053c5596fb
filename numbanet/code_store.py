"""Files of compiled code in the cache directory: which of them are trusted, kept and removed.

A file is a checksum, a line of JSON and what that describes; the checksum covers both and the
file's name. Nothing in it is executed by reading it, and damaged files count as absent. It is
machine code, though, so it is taken only from a directory and a file that belong to the user and
that nobody else can write to.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path

from platformdirs import user_cache_dir

from numbanet.atomic_file import replace_file
from numbanet.regular_file import open_regular

ENTRY = re.compile(r"\w+-[0-9a-f]{32}\.(cpu|ptx|cubin|ir)")
LOCK_SUFFIX = ".lock"  # of an entry's name, while a process compiles it
UNFINISHED = re.compile(ENTRY.pattern + r"\.(lock|[0-9a-f]{32}\.part)")
LONG_SECONDS = 2  # a compilation that takes longer is told of
WAIT_SECONDS = 300  # for another process that compiles the same
LOOK_AGAIN_SECONDS = 0.05
DAY = 24 * 3600
UNUSED_DAYS = 60  # after which an entry is removed
MOST_BYTES = 1 << 30  # of all entries; above it, those that were used last stay
MOST_ENTRY_BYTES = 1 << 28
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_log = logging.getLogger("numbanet")
_one_at_a_time = threading.Lock()


def directory() -> Path:
    """Directory of compiled code: NUMBANET_CACHE_DIR, or the user's cache directory."""
    return _directory(os.environ.get("NUMBANET_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME"))


@cache
def _directory(chosen: str | None, cache_home: str | None) -> Path:
    if chosen:
        found = os.path.expanduser(chosen)
        if not found.startswith("~"):
            return Path(os.path.abspath(found))
        _say(f"NUMBANET_CACHE_DIR: '{chosen}' is the home of no user; numbanet uses its default")
    path = Path(user_cache_dir("numbanet", False))
    if not path.is_absolute():  # XDG asks to ignore such a cache home
        path = Path(os.path.expanduser("~"), ".cache", "numbanet")
    return path


def why_not_trusted(status: os.stat_result) -> str | None:
    """Reason not to trust a file or a directory: others can write to it. None if only we can."""
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}"
    if status.st_mode & OTHERS_WRITE:
        return "others can write to it; chmod go-w makes it yours alone"
    return None


def why_not_used(path: Path) -> str | None:
    """Reason not to use a directory as cache, or None; an absent directory is fine."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return why_not_trusted(status) if stat.S_ISDIR(status.st_mode) else "it is no directory"


@cache
def _say(message: str) -> None:
    _log.warning(message)


def _is_used(path: Path) -> bool:
    """Whether a directory serves as cache; if not, the reason is logged once."""
    reason = why_not_used(path)
    if reason is not None:
        _say(f"numbanet compiles without its cache '{path}': {reason}")
    return reason is None


def path_of(name: str, suffix: str, key: tuple) -> Path:
    """Path of the code with this key; the key is all that determines the code."""
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    return directory() / f"{re.sub(r'[^0-9A-Za-z_]', '_', name)[:80]}-{digest}.{suffix}"


def checksum(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + content).hexdigest().encode()


def read(path: Path) -> tuple[dict, bytes] | None:
    """Description and content of a file, or None if it is absent, damaged or refused."""
    if not _is_used(path.parent):
        return None
    try:
        with open_regular(path, MOST_ENTRY_BYTES) as file:
            status = os.fstat(file.fileno())
            reason = why_not_trusted(status)
            if reason is not None:
                _say(f"numbanet does not use '{path}': {reason}")
                return None
            found, _, content = file.read().partition(b"\n")
        if found != checksum(path, content):
            return None
        if time.time() - status.st_mtime > DAY:
            os.utime(path)
        head, _, content = content.partition(b"\n")
        return json.loads(head), content
    except (OSError, ValueError):
        return None


def write(path: Path, description: dict, content: bytes, lasting: bool = True) -> None:
    """Store content; a directory that cannot be written is no error.

    Args:
        lasting: whether to wait until a loss of power would leave it.
    """
    content = json.dumps(description).encode() + b"\n" + content
    with _one_at_a_time, suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not _is_used(path.parent):
            return
        remove(path)  # it is damaged, or was refused and would leave its owner and mode
        whole = checksum(path, content) + b"\n" + content
        if lasting:
            replace_file(path, whole, mode=0o600)
        else:
            replace_soon(path, whole)
        sweep(path.parent)


def replace_soon(path: Path, content: bytes) -> None:
    """Write a file that nobody finds until it is complete; its checksum tells if it got lost."""
    part = f"{path}.{uuid.uuid4().hex}.part"
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            stream.write(content)
        os.replace(part, path)
    except BaseException:
        remove(Path(part))
        raise


@contextmanager
def compiling(path: Path | None, name: str) -> Iterator[None]:
    """Context for looking up an entry and, if it is absent, compiling it.

    Of several processes one compiles, and the others find what it wrote. One line says what took
    long, as a warning of the logger "numbanet": programs can silence or redirect it.

    Args:
        path: None if the code cannot be kept.
        name: of the kernel.
    """
    if path is not None and path.exists():
        _log.debug("numbanet found %s in '%s'", name, path.parent)
        yield
        return
    with nullcontext() if path is None else _claimed(path):
        begun = time.perf_counter()
        yield
        seconds = time.perf_counter() - begun
        is_kept = path is not None and path.exists()
        place = f"kept in '{path.parent}' for the next time" if is_kept else "not kept"
        level = logging.WARNING if seconds > LONG_SECONDS else logging.INFO
        _log.log(level, "numbanet compiled %s in %.1f s, %s", name, seconds, place)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Wait until no other process compiles an entry; a process that dies leaves no lock behind."""
    file = None
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if why_not_used(path.parent) is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(f"{path}{LOCK_SUFFIX}", flags, 0o600)
            _lock(file)
    try:
        yield
    finally:
        if file is not None:
            # Waiting processes hold the file itself; later ones make a new one.
            remove(path.with_name(path.name + LOCK_SUFFIX))
            os.close(file)


def _lock(file: int) -> None:
    """Lock a file, or give up after WAIT_SECONDS: the entry is then compiled twice."""
    given_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < given_up:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(LOOK_AGAIN_SECONDS)


def entries(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Files of compiled code in a directory; other files are ignored."""
    with suppress(OSError), os.scandir(path) as found:
        for entry in found:
            if ENTRY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False)


def remove(path: Path) -> bool:
    """Remove a file if it exists; returns whether it did."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def sweep(path: Path) -> None:
    """Remove, once a day, entries unused for UNUSED_DAYS, and the oldest above MOST_BYTES."""
    stamp, now = path / "swept", time.time()
    with suppress(OSError):
        if now - stamp.stat().st_mtime < DAY:
            return
    with suppress(OSError):
        stamp.touch(mode=0o600)
    remove_unfinished(path)
    total = 0
    for entry, status in sorted(entries(path), key=lambda each: -each[1].st_mtime):
        total += status.st_size
        if total > MOST_BYTES or now - status.st_mtime > UNUSED_DAYS * DAY:
            remove(entry)


def remove_unfinished(path: Path) -> None:
    """Remove what processes left that were killed while they compiled, or wrote."""
    with suppress(OSError), os.scandir(path) as found:
        for entry in found:
            if UNFINISHED.fullmatch(entry.name):
                remove(Path(entry.path))


def clear(path: Path) -> tuple[int, int]:
    """Remove all entries; returns their number, and their bytes."""
    remove_unfinished(path)
    removed = [status.st_size for entry, status in list(entries(path)) if remove(entry)]
    return len(removed), sum(removed)


def sizes_by_kind(path: Path) -> dict[str, tuple[int, int]]:
    """Number of entries of each kind, "cpu", "ptx", "cubin" and "ir", and their bytes."""
    found = {}
    for entry, status in entries(path):
        n, n_bytes = found.get(entry.suffix[1:], (0, 0))
        found[entry.suffix[1:]] = n + 1, n_bytes + status.st_size
    return found


def size(path: Path) -> tuple[int, int]:
    """Number of entries, and their bytes."""
    sizes = sizes_by_kind(path).values()
    return sum(n for n, _ in sizes), sum(n_bytes for _, n_bytes in sizes)
