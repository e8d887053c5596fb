"""Reading of files: regular ones only, up to a size.

A FIFO or a terminal would wait for somebody to write, a device such as /dev/zero never ends, and
opening a device can do things by itself.
"""

import errno
import os
import stat
from typing import BinaryIO

KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}
# Without these flags of POSIX, a replacement of the file after the check could still block.
FLAGS = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY"))
CHUNK = 1 << 16


class RefusedFileError(OSError):
    """A file exists but is not used; has errno, strerror and filename as every OSError."""


def open_regular(path: str | os.PathLike, most_bytes: int) -> BinaryIO:
    """Open a regular file, or a symbolic link to one, for reading.

    The size is the present one: a growing file may yield more.

    Raises:
        RefusedFileError: no regular file, larger than most_bytes, or a name that no file can have.
        OSError: the file cannot be opened.
        TypeError: no path.
    """
    name = os.fspath(path)
    try:
        _check(os.stat(name), name, most_bytes)  # before opening, which a device may notice
        file = os.fdopen(os.open(name, os.O_RDONLY | FLAGS), "rb")
    except ValueError as error:  # a null character, or an unpaired surrogate
        raise impossible_name(name) from error
    try:
        _check(os.fstat(file.fileno()), name, most_bytes)
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike, most_bytes: int) -> bytes:
    """Read the content of a regular file; raises as open_regular does."""
    with open_regular(path, most_bytes) as file:
        try:
            content = file.read(os.fstat(file.fileno()).st_size + 1) or b""
            # There is more if the file grows, or belongs to /proc, where files say they are empty.
            while len(content) <= most_bytes and (more := file.read(max(len(content), CHUNK))):
                content += more
        except OSError as error:
            error.filename = os.fspath(path)
            raise
    if len(content) > most_bytes:
        raise _too_large(os.fspath(path), most_bytes)
    return content


def check_regular(mode: int, name: str | bytes) -> None:
    """Raise an OSError that names the file, unless its mode is that of a regular one."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise RefusedFileError(errno.EINVAL, f"not a regular file but {kind}", name)


def impossible_name(name: str | bytes) -> RefusedFileError:
    """Error for a name that the system cannot even be asked for."""
    return RefusedFileError(errno.EINVAL, "no file can have this name", name)


def _check(status: os.stat_result, name: str | bytes, most_bytes: int) -> None:
    check_regular(status.st_mode, name)
    if status.st_size > most_bytes:
        raise _too_large(name, most_bytes)


def _too_large(name: str | bytes, most_bytes: int) -> RefusedFileError:
    return RefusedFileError(errno.EFBIG, f"larger than the {most_bytes} bytes that are read", name)
