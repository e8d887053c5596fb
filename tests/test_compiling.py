"""Compilations that processes share, and what is said about long ones."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from numbanet import code_store
from numbanet.kernel_cache import compile_cached

ROOT = Path(__file__).parents[1]
WORK = """
import sys
from numbanet import code_store

path = code_store.path_of("kernel", "cpu", ("key",))
print("begins", flush=True)
with code_store.compiling(path, "kernel"):
    if code_store.read(path) is not None:
        print("found")
    else:
        print("compiles", flush=True)
        sys.stdin.readline()
        code_store.write(path, {}, b"code")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def start(folder):
    """A function that starts a process which compiles one entry when it is told to."""
    started = []

    def start():
        process = subprocess.Popen(
            [sys.executable, "-c", WORK],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "begins\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_second_process_waits_for_what_the_first_one_compiles(start, folder):
    first = start()
    assert first.stdout.readline() == "compiles\n"
    second = start()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(0.3)
    first.communicate("\n")
    assert second.communicate("\n")[0] == "found\n"
    assert not list(folder.glob("*.lock"))


def test_a_process_that_dies_leaves_no_lock(start, folder):
    first = start()
    assert first.stdout.readline() == "compiles\n"
    second = start()
    first.kill()
    assert second.communicate("\n")[0] == "compiles\n"
    assert len(list(folder.glob("*.cpu"))) == 1


def test_a_process_that_compiles_for_ever_is_not_waited_for(start, monkeypatch):
    assert start().stdout.readline() == "compiles\n"
    monkeypatch.setattr(code_store, "WAIT_SECONDS", 0.1)
    path = code_store.path_of("kernel", "cpu", ("key",))
    with code_store.compiling(path, "kernel"):
        assert code_store.read(path) is None


def test_clearing_removes_what_killed_processes_left(start, folder):
    process = start()
    assert process.stdout.readline() == "compiles\n"
    process.kill()
    process.wait()
    assert len(list(folder.glob("*.lock"))) == 1
    assert code_store.clear(folder) == (0, 0)
    assert not list(folder.glob("*.lock"))


def doubled(factor):
    def double(x):
        return x * factor

    return compile_cached(double)


def test_a_long_compilation_is_told_of_once(folder, caplog, monkeypatch):
    doubled(2)(1)
    assert not caplog.messages
    monkeypatch.setattr(code_store, "LONG_SECONDS", -1)
    doubled(3)(1)
    (line,) = caplog.messages
    assert line.startswith("numbanet compiled double in ")
    assert line.endswith(f" s, kept in '{folder}' for the next time")
    assert caplog.records[0].name == "numbanet"


def test_what_is_not_kept_is_said_to_be_lost(folder, caplog, monkeypatch):
    monkeypatch.setattr(code_store, "LONG_SECONDS", -1)
    compile_cached(lambda x: (x, np.ones(2)))(1)
    assert [line.rpartition(", ")[2] for line in caplog.messages] == ["not kept"]


def test_what_was_compiled_before_is_not_told_of(folder, caplog, monkeypatch):
    doubled(4)(1)
    monkeypatch.setattr(code_store, "LONG_SECONDS", -1)
    doubled(4)(1)
    assert not caplog.messages


def test_a_failed_compilation_leaves_no_lock(folder):
    def wrong(x):
        return x.nothing

    with pytest.raises(Exception, match="nothing"):
        compile_cached(wrong)(1)
    assert not list(folder.glob("*.lock"))
