"""Ctrl-C while the command starts: one line, no traceback, exit status 130."""

import signal
import subprocess
import sys

import pytest

from numbanet import ctrl_c
from numbanet.interrupt import Interrupt, cleaning_up


@pytest.mark.parametrize("module", ["numbanet.ctrl_c", "numba", "numbanet", "matplotlib"])
def test_after_an_import(program, photograph, config, tmp_path, module):
    command, environment = program
    arguments = ["learn-image", photograph, config, "--output", tmp_path / "out"]
    process = subprocess.Popen(
        [command[0], "-X", "importtime", *command[1:], *map(str, arguments)],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
    )
    for line in process.stderr:
        if line.rstrip().endswith(f"| {module}") or line.rstrip().endswith(f" {module}"):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert process.returncode == 130
    assert said[-1] == "numbanet: error: interrupted"
    assert not any("Traceback" in line or "KeyboardInterrupt" in line for line in said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("program", "words", "expected"),
    [
        ("/usr/bin/numbanet", [], True),
        ("/site-packages/numbanet/__main__.py", [], True),
        ("-m", ["python", "-X", "dev", "-m", "numbanet", "doctor"], True),
        ("-m", ["python", "-mnumbanet"], True),
        ("-m", ["python", "-m", "numbanet_viewer"], False),
        ("-m", ["python", "-mviewer"], False),
        ("-m", ["python", "-m", "viewer", "numbanet"], False),
        ("train.py", ["python", "train.py", "-m", "numbanet"], False),
        ("", [], False),
    ],
)
def test_other_programs_are_left_alone(monkeypatch, program, words, expected):
    monkeypatch.setattr(sys, "argv", [program] if program else [])
    monkeypatch.setattr(sys, "orig_argv", words)
    assert ctrl_c.is_command() is expected
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        ctrl_c.leave_at_ctrl_c()
        assert (signal.getsignal(signal.SIGINT) is ctrl_c.leave) is expected
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ctrl_c.leave_at_ctrl_c()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_ignores_ctrl_c_goes_on_ignoring_it():
    """As under nohup in a script."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for context in (Interrupt(), cleaning_up()):
        with context as interrupt:
            signal.raise_signal(signal.SIGINT)
            assert not interrupt
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
