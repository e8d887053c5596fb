"""Files of compiled code: trusted if they are ours and whole, found again, and removed in time."""

import os
import sys
import time
from pathlib import Path

import pytest

from numbanet import code_store

CONTENT = {"name": "kernel"}, bytes(range(64)) + b"\n\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "kernels"))
    code_store._say.cache_clear()
    return tmp_path / "kernels"


@pytest.fixture
def entry(folder):
    path = code_store.path_of("kernel", "cpu", ("key",))
    code_store.write(path, *CONTENT)
    assert code_store.read(path) == CONTENT
    return path


def test_every_flipped_bit_is_noticed(entry):
    whole = entry.read_bytes()
    for k in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[k // 8] ^= 1 << k % 8
        entry.write_bytes(damaged)
        assert code_store.read(entry) is None, k
    for n in range(len(whole)):
        entry.write_bytes(whole[:n])
        assert code_store.read(entry) is None
    code_store.write(entry, *CONTENT)
    assert code_store.read(entry) == CONTENT


def test_an_entry_does_not_serve_under_another_name(entry):
    other = code_store.path_of("kernel", "cpu", ("another key",))
    entry.rename(other)
    assert code_store.read(other) is None


def test_others_cannot_read_or_write_what_is_kept(folder):
    umask = os.umask(0)
    try:
        path = code_store.path_of("kernel", "cpu", ("key",))
        code_store.write(path, *CONTENT)
    finally:
        os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777], ids=oct)
def test_a_directory_that_others_can_write_to_is_not_used(folder, entry, mode, caplog):
    folder.chmod(mode)
    other = code_store.path_of("other", "cpu", ("key",))
    for _ in range(2):
        assert code_store.read(entry) is None
        code_store.write(other, *CONTENT)
    assert not other.exists()
    (line,) = caplog.messages
    assert str(folder) in line
    assert "others can write to it; chmod go-w" in line


def test_what_belongs_to_somebody_else_is_not_used(folder, entry, monkeypatch, caplog):
    monkeypatch.setattr(os, "geteuid", lambda: 1 + entry.stat().st_uid)
    assert code_store.read(entry) is None
    (line,) = caplog.messages
    assert f"it belongs to user {entry.stat().st_uid}" in line
    assert "\n" not in line


def test_an_entry_that_others_can_write_to_is_replaced(entry, caplog):
    entry.chmod(0o666)
    assert code_store.read(entry) is None
    (line,) = caplog.messages
    assert str(entry) in line
    code_store.write(entry, *CONTENT)
    assert code_store.read(entry) == CONTENT
    assert entry.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["fifo", "link", "device"])
def test_what_is_no_file_is_replaced(entry, kind, tmp_path):
    entry.unlink()
    if kind == "fifo":
        os.mkfifo(entry, 0o600)
    else:
        entry.symlink_to("/dev/zero" if kind == "device" else tmp_path / "absent")
    assert code_store.read(entry) is None
    code_store.write(entry, *CONTENT)
    assert code_store.read(entry) == CONTENT
    assert not entry.is_symlink()
    assert not (tmp_path / "absent").exists()


def test_a_folder_in_the_place_of_an_entry_is_no_error(entry):
    entry.unlink()
    entry.mkdir()
    code_store.write(entry, *CONTENT)
    assert code_store.read(entry) is None
    assert entry.is_dir()


def age(path, days):
    then = time.time() - days * code_store.DAY
    os.utime(path, (then, then))


def write_another(key):
    path = code_store.path_of("kernel", "ptx", (key,))
    code_store.write(path, *CONTENT)
    return path


def test_entries_go_when_nobody_asks_for_them(folder, entry):
    asked_for, mine = write_another("asked for"), folder / "notes-of-mine.cpu"
    mine.write_text("not compiled code")
    for path in (entry, asked_for, mine, folder / "swept"):
        age(path, 61)
    assert code_store.read(asked_for) == CONTENT
    write_another("new")
    assert not entry.exists()
    assert asked_for.exists()
    assert mine.exists()


def test_the_oldest_entries_go_when_there_are_too_many(folder, entry, monkeypatch):
    paths = [entry, write_another(1), write_another(2)]
    for days, path in zip((3, 9, 5), paths, strict=True):
        age(path, days)
    monkeypatch.setattr(code_store, "MOST_BYTES", 3 * entry.stat().st_size + 9)
    newest = write_another("within a day of the last time")
    assert all(path.exists() for path in paths)
    age(folder / "swept", 2)
    code_store.write(newest, *CONTENT)
    assert [path.exists() for path in paths] == [True, False, True]


@pytest.mark.parametrize(
    ("chosen", "cache_home", "expected"),
    [
        ("", "", "~/.cache/numbanet"),
        (None, "relative", "~/.cache/numbanet"),
        (None, "/somewhere", "/somewhere/numbanet"),
        ("~/kernels", "/somewhere", "~/kernels"),
        ("kernels", None, "kernels"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="needs the directories of Linux")
def test_where_the_cache_is(monkeypatch, chosen, cache_home, expected):
    for name, value in (("NUMBANET_CACHE_DIR", chosen), ("XDG_CACHE_HOME", cache_home)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert code_store.directory() == Path(os.path.abspath(os.path.expanduser(expected)))


def test_a_home_of_no_user_makes_no_folder_of_that_name(monkeypatch, caplog):
    monkeypatch.delenv("NUMBANET_CACHE_DIR", raising=False)
    default = code_store.directory()
    monkeypatch.setenv("NUMBANET_CACHE_DIR", "~nobody_of_that_name/kernels")
    assert code_store.directory() == default
    assert "'~nobody_of_that_name/kernels' is the home of no user" in caplog.text
