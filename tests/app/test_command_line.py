"""The command as a user runs it, and what it says when something is wrong."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from full_disk import full_disk
from PIL import Image

import numbanet
from numbanet import code_store
from numbanet.app import run_learning

SMALL = ["--batch-size", 256, "--seed", 7]


def complaint(answer, exit_code=2):
    """The one line on standard error of a command that failed as it should."""
    code, out, err = answer
    assert code == exit_code
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("compiling")]
    assert len(lines) == 1, err
    assert lines[0].startswith("numbanet: error: ")
    return lines[0]


def test_a_short_run(command, photograph, config, tmp_path):
    output = tmp_path / "out"
    code, out, err = command(
        "learn-image", photograph, config, "--steps", 20, "--output", output, *SMALL
    )
    assert code == 0
    assert re.match(r"20 steps, \d+\.\d\d dB, \d+\.\d\d M samples/s; wrote\n", out)
    for line in out.splitlines()[1:]:
        assert Path(line.strip()).is_file()
    assert str(output / "contact_sheet.png") in out
    assert "compiling" in err
    assert re.search(r"step 10/20  loss \S+  \S+ dB  \S+ M samples/s  \d+ s left", err)


def test_help_version_and_no_command(command):
    code, out, _ = command()
    assert code == 2
    assert "learn-image" in out
    for arguments in (["--version"], ["--help"], ["learn-image", "--help"]):
        code, more, _ = command(*arguments)
        assert code == 0
        out += more
    assert "numbanet" in out
    assert "--batch-size" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["learn-image"], "IMAGE; see numbanet learn-image --help"),
        (["learn-picture"], "invalid choice: 'learn-picture'"),
        (["learn-image", "x.png", "--steps", "many"], "--steps: invalid int value: 'many'"),
        (["learn-image", "x.png", "--precision", "float8"], "invalid choice: 'float8'"),
        (["learn-image", "x.png", "--steps", "-1"], "steps: -1 is not allowed; use 0"),
        (["learn-image", "x.png", "--batch-size", "0"], "batch size: 0 is not allowed; use 1"),
        (["learn-image", "x.png", "--seed", "-3"], "seed: -3 is not allowed; use 0"),
        (["learn-image", "no such file.png"], "'no such file.png': No such file"),
        (["learn-image", "."], "cannot read '.': Is a directory"),
        (["learn-image", __file__], "is not an image"),
    ],
)
def test_wrong_arguments(command, arguments, message):
    assert message in complaint(command(*arguments))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json"),
        ("[]", "config"),
        ('{"network": {"otype": "Transformer"}}', "'Transformer' is no network; use one of"),
        ('{"encoding": {"otype": "HashGird"}}', "use one of"),
        ('{"network": {"otype": "CutlassMLP", "n_neurons": -64}}', "network.n_neurons: -64"),
        ('{"network": {"n_neurons": "many"}}', "network.n_neurons: expected int"),
        ('{"encoding": {"otype": "HashGrid", "n_levels": 0}}', "encoding.n_levels: 0"),
        ('{"optimizer": {"learning_rate": NaN}}', "config.json"),
        ('{"optimizer": {"learning_rate": 1e999}}', "optimizer.learning_rate: inf"),
    ],
)
def test_wrong_configs(command, photograph, config, tmp_path, text, message):
    config.write_text(text)
    output = tmp_path / "out"
    line = complaint(command("learn-image", photograph, config, "--output", output))
    assert message in line
    assert not output.exists()


def test_a_config_that_is_not_there(command, photograph, tmp_path):
    line = complaint(command("learn-image", photograph, tmp_path / "missing.json"))
    assert "missing.json': No such file" in line


def test_unknown_options_are_a_warning(command, photograph, config, tmp_path):
    content = numbanet.load_config(config)
    content["optimizer"]["learning_rat"] = 1
    config.write_text(json.dumps(content))
    code, _, err = command(
        "learn-image", photograph, config, "--steps", 1, "--output", tmp_path / "out", *SMALL
    )
    assert code == 0
    assert err.startswith("numbanet: warning: optimizer.learning_rat: ")
    assert "did you mean 'learning_rate'?" in err.splitlines()[0]


def test_a_gpu_that_is_not_there(command, photograph, config):
    line = complaint(command("learn-image", photograph, config, "--device", "cuda:99"))
    assert 'use device="cpu"' in line or "there is no cuda:99" in line


def test_missing_packages(command, photograph, monkeypatch):
    find = run_learning.importlib.util.find_spec
    monkeypatch.setattr(
        run_learning.importlib.util,
        "find_spec",
        lambda name: None if name in ("rich", "PIL") else find(name),
    )
    line = complaint(command("learn-image", photograph))
    assert 'missing: pillow, rich; pip install "numbanet[samples]"' in line


def test_an_output_that_cannot_be_written(command, photograph, config, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for output, reason in [(file, "File exists"), (file / "below", "Not a directory")]:
        answer = command("learn-image", photograph, config, "--output", output, *SMALL)
        assert reason in complaint(answer, 1)


def test_a_full_disk_leaves_what_was_there(command, photograph, config, tmp_path):
    output = tmp_path / "out"
    arguments = ["learn-image", photograph, config, "--output", output, *SMALL]
    assert command(*arguments, "--steps", 5)[0] == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    snapshot = output / "snapshot.safetensors"
    with full_disk(snapshot.stat().st_size // 2):
        answer = command(*arguments, "--steps", 8, "--resume", snapshot)
    line = complaint(answer, 1)
    assert f"cannot write '{snapshot}': File too large" in line
    after = {path.name: path.read_bytes() for path in output.iterdir()}
    assert after.pop("step_000008.png")
    assert after == before


def test_not_enough_memory(command, photograph, config, tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError("Unable to allocate 1 PiB")

    monkeypatch.setattr(numbanet.Trainer, "training_step", fail)
    answer = command("learn-image", photograph, config, "--output", tmp_path / "out", *SMALL)
    assert "not enough memory: Unable to allocate 1 PiB" in complaint(answer, 1)


def started(program, photograph, config, output, *more):
    """A run in another process that has reached its tenth step."""
    command, environment = program
    arguments = [*command, "learn-image", photograph, config, "--output", output, *SMALL, *more]
    process = subprocess.Popen(
        [str(argument) for argument in arguments],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    while not (output / "snapshot.safetensors").exists():  # written after the tenth step
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def test_ctrl_c_saves_and_resumes(program, photograph, config, tmp_path, command):
    output = tmp_path / "out"
    options = ["--steps", 10**7, "--device", "cpu", "--precision", "float32"]
    process = started(program, photograph, config, output, *options)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    step = int(re.match(r"(\d+) steps", out).group(1))
    last = err.splitlines()[-1]
    assert last.startswith(f"interrupted at step {step} of 10000000; continue with: numbanet ")
    assert last.endswith(f"--resume {output / 'snapshot.safetensors'}")
    assert " --device cpu --precision float32 " in last
    assert (output / f"step_{step:06}.png").is_file()
    assert json.loads((output / "report.json").read_text())["steps"]["finished"] is False
    assert not [path for path in output.iterdir() if path.name.startswith(".")]

    n_steps = ["--steps", step + 3]
    resume = ["--resume", output / "snapshot.safetensors"]
    assert command("learn-image", photograph, "--output", output, *n_steps, *resume)[0] == 0
    whole = tmp_path / "whole"
    arguments = ["learn-image", photograph, config, "--output", whole, *n_steps, *SMALL]
    assert command(*arguments)[0] == 0
    one, two = (numbanet.load(path / "snapshot.safetensors") for path in (output, whole))
    np.testing.assert_array_equal(one.network.params, two.network.params)
    np.testing.assert_array_equal(one.trainer.optimizer_state, two.trainer.optimizer_state)


def test_a_second_ctrl_c_aborts(program, tmp_path, config):
    photograph = tmp_path / "large.png"  # so that the last picture takes a while
    Image.new("RGB", (1200, 1000)).save(photograph)
    output = tmp_path / "out"
    process = started(program, photograph, config, output, "--steps", 10**7)
    process.send_signal(signal.SIGINT)
    line = process.stderr.readline()
    while "Ctrl-C again to abort" not in line:
        assert line, "no notice of the first Ctrl-C"
        line = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "numbanet: error: interrupted"
    assert "Traceback" not in err
    assert not (output / "contact_sheet.png").exists()
    numbanet.load(output / "snapshot.safetensors")  # that of step 10, whole


def test_the_cache_is_shown_and_cleared(command, monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    code_store.write(code_store.path_of("kernel", "ptx", ("key",)), {}, bytes(10**6))
    (tmp_path / "notes").write_text("not compiled code")
    code, shown, _ = command("cache")
    assert code == 0
    assert f"{tmp_path}: 1 kernel, 1.0 MB\n" in shown
    assert command("cache", "clear") == (0, f"{tmp_path}: removed 1 kernel, 1.0 MB\n", "")
    code, shown, _ = command("cache", "show")
    assert code == 0
    assert f"{tmp_path}: 0 kernels, 0.0 MB\n" in shown
    assert (tmp_path / "notes").exists()
