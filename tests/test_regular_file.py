"""Reading regular files: nothing waits, nothing is endless, and messages name the file."""

import errno
import os
import socket
from pathlib import Path

import pytest

import numbanet
from numbanet.regular_file import RefusedFileError, open_regular, read_regular


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    return path


def test_a_file_is_read(file):
    assert read_regular(file, 5) == b"12345"
    assert read_regular(str(file), 100) == b"12345"
    with open_regular(file, 5) as opened:
        assert opened.read(2) == b"12"


def test_a_link_to_a_file_is_read(file):
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_regular(link, 5) == b"12345"


@pytest.mark.parametrize("read", [open_regular, read_regular])
def test_a_larger_file_is_refused(file, read):
    with pytest.raises(RefusedFileError, match="larger than the 4 bytes that are read"):
        read(file, 4)


def test_a_file_that_says_it_is_empty_is_refused_once_it_is_larger():
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(RefusedFileError, match="larger"):
        read_regular("/proc/self/status", 10)


def test_a_limit_costs_no_memory(file):
    assert read_regular(file, 1 << 60) == b"12345"
    says_empty = Path("/proc/filesystems")
    assert read_regular(says_empty, 1 << 60) == says_empty.read_bytes()


@pytest.mark.parametrize("read", [open_regular, read_regular])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, kind in [
            ("fifo", "FIFO"),
            ("socket", "socket"),
            ("link", "character device"),
        ]:
            with pytest.raises(RefusedFileError, match=f"not a regular file but a {kind}.*{name}"):
                read(tmp_path / name, 100)


def test_a_directory_and_no_file_raise_as_ever(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        read_regular(tmp_path, 100)
    with pytest.raises(FileNotFoundError, match="absent"):
        read_regular(tmp_path / "absent", 100)


@pytest.mark.parametrize("name", ["\0", "a\ud800"])
def test_a_name_that_no_file_can_have_is_an_error_of_files(name):
    with pytest.raises(RefusedFileError, match="no file can have this name") as caught:
        read_regular(name, 100)
    assert caught.value.errno == errno.EINVAL


def test_a_number_is_no_path():
    with pytest.raises(TypeError):
        read_regular(0, 100)


def test_a_fifo_that_takes_the_place_of_a_file_is_refused(file, monkeypatch):
    status = os.stat(file)
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr("numbanet.regular_file.os.stat", lambda name: status)
    with pytest.raises(RefusedFileError, match="FIFO"):
        read_regular(file, 100)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs /proc of Linux")
@pytest.mark.parametrize("read_it", [numbanet.load, numbanet.load_config, numbanet.load_params])
def test_a_file_that_cannot_be_read_is_named(read_it):
    with pytest.raises(OSError, match="'/proc/self/mem'"):
        read_it("/proc/self/mem")
