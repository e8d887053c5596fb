"""What the README shows runs as it stands, in the environment that the README says."""

import re
import shlex
import subprocess
import sys

import pytest
from declared_environment import ROOT, declared

FENCE = re.compile(r"^```(\w*) *\n(.*?)^``` *$", re.DOTALL | re.MULTILINE)
SHORTER = ["--steps", "3", "--batch-size", "64"]  # of two values, the last holds
SMALLER = {"learn-field": ["--downscale", "16"]}


def blocks(kind):
    """The README's blocks of a kind, from their first line to the closing fence."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [body for found, body in FENCE.findall(text) if found == kind]


def commands(program):
    """Arguments of the calls of a program in the README's blocks of commands."""
    lines = [shlex.split(line, comments=True) for body in blocks("") for line in body.splitlines()]
    return [words[1:] for words in lines if words and words[0] == program]


@pytest.fixture
def run(tmp_path):
    """Run a program in an empty directory, beside what numbanet declares with some extras only."""

    def run(extras, *program):
        return subprocess.run(
            [
                sys.executable,
                "-W",
                "error",
                ROOT / "tests/declared_environment.py",
                extras,
                *program,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_what_is_not_declared_is_hidden(run, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import numba, numbanet, numpy\nimport pytest")
    assert "No module" not in run("", program).stderr
    assert "pytest is not among what numbanet declares" in run("", program).stderr
    program.write_text("import matplotlib")
    assert run("", program).returncode != 0
    assert run("samples", program).returncode == 0


@pytest.mark.parametrize("code", blocks("python"))
def test_examples_run_with_what_pip_install_brings(run, code, tmp_path):
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = run("", "example.py")
    assert done.returncode == 0, done.stderr


def test_there_are_examples():
    assert blocks("python")
    assert commands("numbanet")


@pytest.mark.parametrize("arguments", commands("numbanet"), ids=" ".join)
def test_commands_run_with_the_samples_extra(run, arguments, tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 6), "teal").save(tmp_path / "photo.jpg")
    done = run("samples", "-m", "numbanet", *arguments, *SHORTER, *SMALLER.get(arguments[0], []))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "learned" / "report.json").is_file()


def test_extras_and_targets_exist():
    installed = [words[-1] for words in commands("pip")]
    assert installed
    for place in installed:
        assert set(re.sub(r"^\.\[?|\]$", "", place).split(",")) - {""} <= declared()[1].keys()
    targets = [words[0] for words in commands("make")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
