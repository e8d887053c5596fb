"""Replacing files: complete or not at all, and everything else about them stays."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk

from numbanet.atomic_file import replace_file
from numbanet.regular_file import RefusedFileError


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def names(directory):
    return sorted(os.listdir(directory))


@contextmanager
def umask(value):
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


def test_parts_are_joined(tmp_path):
    replace_file(tmp_path / "file", b"12", np.array([1.0, 2.0], np.float32), b"", b"3")
    expected = b"12\0\0\x80\x3f\0\0\0\x40" + b"3"
    assert (tmp_path / "file").read_bytes() == expected
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
def test_any_kind_of_path(tmp_path, kind):
    replace_file(kind(str(tmp_path / "file")), b"1")
    replace_file(kind(str(tmp_path / "file")), b"2")
    assert (tmp_path / "file").read_bytes() == b"2"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o777])
def test_the_mode_stays(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    with umask(0o022):
        replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode_of(path) == mode


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_new_file_has_the_mode_of_any_new_file(tmp_path, mask):
    with umask(mask):
        replace_file(tmp_path / "file", b"1")
    assert mode_of(tmp_path / "file") == 0o666 & ~mask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 23456)
    replace_file(path, b"new")
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (12345, 23456)


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target = tmp_path / "elsewhere" / "file"
    target.write_bytes(b"old")
    (tmp_path / "near").symlink_to("elsewhere/file")
    (tmp_path / "link").symlink_to(tmp_path / "near")
    replace_file(tmp_path / "link", b"new")
    assert os.readlink(tmp_path / "link") == str(tmp_path / "near")
    assert os.readlink(tmp_path / "near") == "elsewhere/file"
    assert target.read_bytes() == b"new"
    assert names(target.parent) == ["file"]


def test_a_link_to_nothing_yet_stays_too(tmp_path):
    (tmp_path / "link").symlink_to("file")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_link_to_itself_is_named(tmp_path):
    (tmp_path / "link").symlink_to("link")
    with pytest.raises(OSError, match=r"link'$") as caught:
        replace_file(tmp_path / "link", b"new")
    assert caught.value.filename2 is None


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/null")
    (tmp_path / "directory").mkdir()
    before = names(tmp_path)
    for name in ("fifo", "device"):
        with pytest.raises(RefusedFileError, match=f"not a regular file but a .*{name}"):
            replace_file(tmp_path / name, b"new")
    with pytest.raises(IsADirectoryError, match="directory"):
        replace_file(tmp_path / "directory", b"new")
    assert names(tmp_path) == before
    assert stat.S_ISFIFO(os.lstat(tmp_path / "fifo").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("letter", ["a", "é"])
def test_names_may_be_as_long_as_the_file_system_allows(tmp_path, letter):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    name = letter * (longest // len(letter.encode()))
    replace_file(tmp_path / name, b"1")
    assert names(tmp_path) == [name]
    with pytest.raises(OSError, match="too long") as caught:
        replace_file(tmp_path / f"{name}{letter}", b"1")
    assert caught.value.filename == str(tmp_path / f"{name}{letter}")


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_of_files(name):
    with pytest.raises(RefusedFileError, match="no file can have this name"):
        replace_file(name, b"1")


def test_a_missing_folder_names_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(path, b"1")
    assert caught.value.filename == str(path)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("n_bytes", [0, 100_000])
def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, n_bytes):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with full_disk(n_bytes), pytest.raises(OSError, match="too large") as caught:
        replace_file(path, b"new" * 100_000)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_late_leaves_the_old_file_and_names_it(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fails(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", *arguments[:1])

    monkeypatch.setattr(f"numbanet.atomic_file.os.{step}", fails)
    with pytest.raises(OSError, match="No space") as caught:
        replace_file(path, b"new")
    assert str(caught.value) == f"[Errno 28] No space left on device: '{path}'"
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from numbanet import atomic_file
os.{step} = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
atomic_file.replace_file(sys.argv[1], b"new")
"""


def killed_save(path, step="fsync"):
    """A process that is killed while it replaces a file."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(step=step), path], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_next_save_removes_what_a_kill_left(tmp_path, step):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    killed_save(path, step)
    assert path.read_bytes() == b"old"
    assert len(names(tmp_path)) == 2
    replace_file(path, b"newest")
    assert path.read_bytes() == b"newest"
    assert names(tmp_path) == ["file"]


def test_a_save_removes_no_files_of_other_places(tmp_path):
    killed_save(tmp_path / "first")
    before = names(tmp_path)
    others = [".second.part", ".numbanet-", "second.part"]
    for other in others:
        (tmp_path / other).write_bytes(b"mine")
    replace_file(tmp_path / "second", b"1")
    assert names(tmp_path) == sorted([*before, *others, "second"])


def test_a_part_file_that_is_being_written_stays(tmp_path, monkeypatch):
    """Two saves to one place at once: both complete, and the last one holds."""
    path, fsync = tmp_path / "file", os.fsync
    first_is_written, second_is_done = threading.Event(), threading.Event()

    def slow(file):
        fsync(file)
        if not first_is_written.is_set():
            first_is_written.set()
            assert second_is_done.wait(60)

    monkeypatch.setattr("numbanet.atomic_file.os.fsync", slow)
    first = threading.Thread(target=replace_file, args=(path, b"first"))
    first.start()
    assert first_is_written.wait(60)
    replace_file(path, b"second")
    assert path.read_bytes() == b"second"
    second_is_done.set()
    first.join()
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["file"]


def test_a_part_file_taken_for_abandoned_is_made_anew(tmp_path, monkeypatch):
    """Another save may look at a part file before it is locked."""
    fcntl, taken = sys.modules["fcntl"], []
    flock = fcntl.flock

    def late(file, flags):
        if not taken:
            taken.extend(names(tmp_path))
            os.unlink(tmp_path / taken[0])
        flock(file, flags)

    monkeypatch.setattr("numbanet.atomic_file.fcntl.flock", late)
    replace_file(tmp_path / "file", b"new")
    assert len(taken) == 1
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names(tmp_path) == ["file"]
