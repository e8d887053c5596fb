"""Commands whose standard output or error is lost go on to the end."""

import io
import os
import subprocess
import sys

import pytest

from numbanet.app import command_line, compile_kernels
from numbanet.app.streams import LossyStream

SMALL = ["--steps", "3", "--batch-size", "256", "--seed", "7"]


def closed_pipe():
    """A descriptor to write to, which nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return os.fdopen(writing, "w")


@pytest.fixture
def full_disk():
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full of Linux")
    with open("/dev/full", "w") as file:
        yield file


@pytest.fixture
def ended(program):
    """Run the command with other streams: (exit code, standard output, standard error)."""

    def ended(*arguments, **streams):
        start, environment = program
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        done = subprocess.run(
            [*start, *map(str, arguments)], env=environment, text=True, check=False, **streams
        )
        return done.returncode, done.stdout, done.stderr

    return ended


def learn(ended, photograph, config, output, **streams):
    """Learn an image; the results are there, whatever became of the streams."""
    answer = ended("learn-image", photograph, config, "--output", output, *SMALL, **streams)
    assert (output / "report.json").is_file()
    assert (output / "snapshot.safetensors").is_file()
    return answer


def test_nobody_reads_the_progress(ended, photograph, config, tmp_path):
    with closed_pipe() as pipe:
        code, out, _ = learn(ended, photograph, config, tmp_path / "out", stderr=pipe)
    assert code == 0
    assert "contact_sheet.png" in out


def test_the_disk_is_full_of_progress(ended, photograph, config, tmp_path, full_disk):
    with closed_pipe() as pipe:
        streams = {"stdout": pipe, "stderr": full_disk}
        assert learn(ended, photograph, config, tmp_path / "out", **streams)[0] == 0


def test_a_summary_that_cannot_be_written(ended, photograph, config, tmp_path, full_disk):
    code, _, err = learn(ended, photograph, config, tmp_path / "out", stdout=full_disk)
    assert code == 1
    line = err.splitlines()[-1]
    assert line == "numbanet: error: cannot write the output: No space left on device"


def test_no_streams_at_all(ended, photograph, config, tmp_path):
    closing = {"preexec_fn": lambda: os.closerange(0, 3)}
    assert learn(ended, photograph, config, tmp_path / "out", **closing)[0] == 0


def test_a_report_that_nobody_reads(ended, full_disk):
    with closed_pipe() as pipe:
        assert ended("doctor", stdout=pipe)[::2] == (0, "")
    code, _, err = ended("doctor", stdout=full_disk)
    assert code == 1
    assert err == "numbanet: error: cannot write the output: No space left on device\n"


def test_kernels_are_compiled_all_the_same(config, monkeypatch):
    compiled = []

    def compile_one_after_another(*arguments, **options):
        for number in range(3):
            compiled.append(number)
            options["output"].say(f"kernel {number}")

    monkeypatch.setattr(compile_kernels, "compile_kernels", compile_one_after_another)
    with closed_pipe() as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert command_line.main(["compile", str(config), "--arch", "sm_90"]) == 0
    assert compiled == [0, 1, 2]


def test_letters_that_a_stream_does_not_have():
    written = io.BytesIO()
    stream = LossyStream(io.TextIOWrapper(written, encoding="utf-8", write_through=True))
    stream.write("caf\xe9 \udcff")
    assert written.getvalue() == b"caf\xc3\xa9 \\udcff"
