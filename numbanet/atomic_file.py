"""Files that appear complete or not at all.

Data is first written to a part file beside the target, whose name it contains, and
which is locked for as long as a process writes to it. So part files of killed processes differ
from those that are being written.
"""

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from numbanet.regular_file import check_regular, impossible_name


def replace_file(path: str | os.PathLike, *parts, mode: int = 0o666) -> None:
    """Write a file so that `path` holds either all of the parts or its previous content.

    A symbolic link stays one, and what it leads to is replaced; a file that is replaced leaves its
    mode, and where that is allowed its owner, to the new one. Part files that killed processes left
    for this place are removed.

    Args:
        path: a regular file, a link to one, or nothing yet.
        parts: bytes, or arrays in C order, one after the other.
        mode: the permissions of a new file, before the umask.

    Raises:
        RefusedFileError: there is something else, such as a FIFO or a device.
        OSError: the file cannot be written. The error names `path`.
    """
    name = os.fspath(path)
    with _naming(name):
        target = _target(name)
        old = _status(target, name)
        prefix = f".numbanet-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}-"
        _remove_abandoned(target.parent, prefix)
        with _part_file(target.parent, prefix, mode if old is None else 0o600) as (part, file):
            if old is not None:
                _take_after(file, old)
            with os.fdopen(file, "wb", closefd=False) as stream:
                for each in parts:
                    stream.write(each)
            os.fsync(file)
            os.replace(part, target)


@contextmanager
def _naming(name: str | bytes) -> Iterator[None]:
    """Context for work on a file: an OSError names it, and none of the other files involved."""
    try:
        yield
    except OSError as error:
        if error.filename == name and error.filename2 is None:
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno or errno.EIO, reason, name) from None


def _target(name: str | bytes) -> Path:
    """The path that a name resolves to, through all links."""
    try:
        return Path(os.path.realpath(os.fsdecode(name)))
    except ValueError as error:  # a null character, or an unpaired surrogate
        raise impossible_name(name) from error


def _status(target: Path, name: str | bytes) -> os.stat_result | None:
    """Status of the file to be replaced, if it exists."""
    try:
        status = os.stat(target)  # raises for a circle of links
    except FileNotFoundError:
        return None
    check_regular(status.st_mode, name)
    return status


def _take_after(file: int, old: os.stat_result) -> None:
    """Copy owner and permissions of another file, where the system allows it."""
    with suppress(OSError):
        os.fchown(file, old.st_uid, old.st_gid)
    with suppress(OSError):
        os.fchmod(file, old.st_mode & 0o777)


@contextmanager
def _part_file(directory: Path, prefix: str, mode: int) -> Iterator[tuple[Path, int]]:
    """Create a locked file, which is removed on failure."""
    while True:
        part = directory / f"{prefix}{uuid.uuid4().hex[:16]}.part"
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with suppress(OSError):  # file systems of networks may have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink == 0:  # taken for abandoned before it was locked
                continue
            yield part, file
            return
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(file)


def _remove_abandoned(directory: Path, prefix: str) -> None:
    """Remove part files that no process is writing to."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.name.endswith(".part"):
                with suppress(OSError):
                    _remove_unlocked(entry.path)


def _remove_unlocked(part: str) -> None:
    file = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises if it is locked
        os.unlink(part)
    finally:
        os.close(file)
