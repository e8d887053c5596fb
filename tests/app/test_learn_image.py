"""The main job, called from Python."""

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import numbanet
from numbanet.app.course import picture_due
from numbanet.app.errors import AppError, UsageError
from numbanet.app.learn_image import DEFAULT_CONFIG, learn_image
from numbanet.history import loss_due, milestone_due

SAMPLES = Path(__file__).parents[2] / "samples"
SMALL = {"batch_size": 256, "seed": 7}


def stop_after(n_steps):
    """For `interrupted`, which is asked after each step and once before the second."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) >= n_steps


def size(path):
    with Image.open(path) as image:
        return image.size


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_everything_is_written(photograph, config, tmp_path):
    output = tmp_path / "some" / "where"
    result = learn_image(photograph, config, n_steps=120, output=output, **SMALL)
    assert sorted(path.name for path in output.iterdir()) == [
        "contact_sheet.png",
        "curves.png",
        "reference.png",
        "report.json",
        "snapshot.safetensors",
        "step_000010.png",
        "step_000100.png",
        "step_000120.png",
    ]
    assert result.finished
    assert result.step == 120
    assert sorted(result.files) == sorted(output.iterdir())
    names = ["step_000010.png", "step_000100.png", "step_000120.png", "reference.png"]
    assert [path.name for path in result.pictures] == names
    for path in result.pictures:
        assert size(path) == (40, 30)
    np.testing.assert_array_equal(pixels(output / "reference.png"), pixels(photograph))
    assert size(result.contact_sheet) == (4 * 52 + 12, 2 * (30 + 24) + 12)
    assert size(result.curves) == (1200, 480)


def test_the_report_says_what_happened(photograph, config, tmp_path):
    result = learn_image(photograph, config, n_steps=120, output=tmp_path / "out", **SMALL)
    report = json.loads(result.report.read_text(), parse_constant=pytest.fail)
    assert report["job"]["batch_size"] == 256
    assert report["job"]["seed"] == 7
    assert report["job"]["config"]["encoding"]["n_levels"] == 4
    assert report["steps"] == {"asked": 120, "made": 120, "finished": True}
    size = {"width": 40, "height": 30, "white": 255}
    assert report["image"] == {"path": str(photograph), **size}
    assert report["psnr"] == result.psnr > 20
    assert report["loss"] == result.loss
    assert [entry["step"] for entry in report["psnrs"]] == [1, 2, 5, 10, 20, 50, 100, 120]
    assert [entry["step"] for entry in report["losses"]] == [*range(1, 101), 110, 120]
    timings = report["timings"]
    assert timings["timed_steps"] == 119
    rate = 119 * 256 / timings["training_seconds"]
    assert timings["samples_per_second"] == pytest.approx(rate)
    assert timings["compile_seconds"] > 0
    assert report["files"] == [path.name for path in result.files]
    assert report["environment"]["packages"]["numpy"] == np.__version__


def test_the_psnr_is_that_of_the_picture(photograph, config, tmp_path):
    result = learn_image(photograph, config, n_steps=100, output=tmp_path / "out", **SMALL)
    learned, reference = (pixels(path) / 255 for path in result.pictures[-2:])
    measured = -10 * math.log10(np.mean((learned - reference) ** 2))
    assert result.psnr == pytest.approx(measured, abs=0.1)  # the file is rounded to 8 bits


def test_resuming_changes_nothing(photograph, config, tmp_path):
    whole = learn_image(photograph, config, n_steps=130, output=tmp_path / "whole", **SMALL)
    first = learn_image(
        photograph,
        config,
        n_steps=130,
        output=tmp_path / "parts",
        interrupted=stop_after(37),
        **SMALL,
    )
    assert not first.finished
    assert first.step == 37
    last = learn_image(photograph, n_steps=130, output=tmp_path / "parts", resume=first.snapshot)
    assert last.step == 130
    one, two = (numbanet.load(result.snapshot) for result in (whole, last))
    np.testing.assert_array_equal(one.network.params, two.network.params)
    np.testing.assert_array_equal(one.trainer.optimizer_state, two.trainer.optimizer_state)
    assert one.trainer.n_steps == two.trainer.n_steps == 130
    assert one.metadata["learn_image"]["job"] == two.metadata["learn_image"]["job"]
    assert whole.psnr == last.psnr
    assert whole.pictures[-2].read_bytes() == last.pictures[-2].read_bytes()
    names = ["step_000010.png", "step_000037.png", "step_000100.png", "step_000130.png"]
    assert [path.name for path in last.pictures] == [*names, "reference.png"]
    losses = json.loads(last.report.read_text())["losses"]
    assert losses == json.loads(whole.report.read_text())["losses"]


def test_only_the_same_job_is_resumed(photograph, config, tmp_path):
    output = tmp_path / "out"
    result = learn_image(photograph, config, n_steps=3, output=output, **SMALL)
    other = tmp_path / "other.png"
    Image.new("RGB", (40, 30)).save(other)
    before = result.snapshot.read_bytes()

    def resume(image=photograph, config=None, **options):
        options = {"n_steps": 5, "output": output, "resume": result.snapshot} | options
        return learn_image(image, config, **options)

    with pytest.raises(UsageError, match="another image"):
        resume(other)
    with pytest.raises(UsageError, match="another config"):
        resume(config=DEFAULT_CONFIG)
    with pytest.raises(UsageError, match="batch size 256"):
        resume(batch_size=128)
    with pytest.raises(UsageError, match="seed 7"):
        resume(seed=8)
    with pytest.raises(UsageError, match="3 steps already"):
        resume(n_steps=3)
    with pytest.raises(UsageError, match=r"cannot read .*missing"):
        resume(resume=tmp_path / "missing")
    foreign = tmp_path / "foreign.safetensors"
    numbanet.load(result.snapshot).save(foreign)
    with pytest.raises(UsageError, match="not saved by learn-image"):
        resume(resume=foreign)
    foreign.write_bytes(before[: len(before) // 2])
    with pytest.raises(UsageError, match=r"foreign\.safetensors"):
        resume(resume=foreign)
    assert result.snapshot.read_bytes() == before


JOB = {"batch_size": [0, -1, 2**31, 1.5, "16", None, True, [16]], "seed": [-1, 2**32, "x", None]}
COURSE = {
    "step": [-1, math.nan, 1.5, "x", None, True, 10**40],
    "rng_state": [-1, 2**64, "x", 1.5, None, [1]],
    "losses": [None, {}, "xx", [], [1], [[1]], [["a", "b"]], [[1, 2.0, 3.0]], [[99, 1.0]]],
    "psnrs": [None, [], [[1, 2.0]], [[1, None, None]], [["1", 2.0, 2.0]]],
    "pictures": [3, [[1, 5]], [[2, "../../secret.png"]], [[2, "/dev/zero"]], [[2, "\0"]]],
    "training_seconds": ["x", None, -1.0, 0.0, math.nan, math.inf, 10**400],
    "timed_steps": ["x", -5, 1.5, None],
}


def test_what_a_snapshot_says_about_a_training_is_checked(photograph, config, tmp_path):
    """A picture's name, for example, is a file that would be opened."""
    output = tmp_path / "out"
    snapshot = learn_image(photograph, config, n_steps=3, output=output, **SMALL).snapshot
    model = numbanet.load(snapshot)
    cases = [
        (part, option, value)
        for part, options in (("job", JOB), ("course", COURSE))
        for option, values in options.items()
        for value in values
    ]
    for part, option, value in cases:
        metadata = copy.deepcopy(model.metadata)
        metadata["learn_image"][part][option] = value
        model.save(snapshot, metadata)
        with pytest.raises(UsageError, match="was not saved by learn-image"):
            learn_image(photograph, n_steps=9, output=output, resume=snapshot)
    metadata = copy.deepcopy(model.metadata)
    metadata["learn_image"]["job"]["batch_size"] = 2**30
    model.save(snapshot, metadata)
    with pytest.raises(UsageError, match="--batch-size 1073741824"):
        learn_image(photograph, n_steps=9, output=output, resume=snapshot)
    model.save(snapshot, model.metadata)
    assert learn_image(photograph, n_steps=4, output=output, resume=snapshot).step == 4


@pytest.mark.parametrize("name", ["step_000010.png", "step_000012.png", "report.json"])
def test_what_is_in_the_way_of_a_file_is_known_before_the_training(
    photograph, config, tmp_path, name
):
    os.mkfifo(tmp_path / name)
    with pytest.raises(AppError, match=f"cannot write .*{name}': not a regular file but a FIFO"):
        learn_image(photograph, config, n_steps=12, output=tmp_path, **SMALL)
    assert not (tmp_path / "reference.png").exists()


def test_no_steps_at_all(photograph, config, tmp_path):
    result = learn_image(photograph, config, n_steps=0, output=tmp_path / "out", **SMALL)
    assert [path.name for path in result.pictures] == ["step_000000.png", "reference.png"]
    report = json.loads(result.report.read_text(), parse_constant=pytest.fail)
    assert report["loss"] is None
    assert report["timings"]["samples_per_second"] == 0
    output = tmp_path / "out"
    assert learn_image(photograph, n_steps=2, output=output, resume=result.snapshot).step == 2


def test_one_pixel_and_one_sample(config, tmp_path):
    path = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1), "teal").save(path)
    result = learn_image(path, config, n_steps=2, output=tmp_path / "out", batch_size=1)
    assert size(result.pictures[0]) == (1, 1)


@pytest.mark.parametrize(
    "options", [{"n_steps": -1}, {"n_steps": 1.5}, {"batch_size": 0}, {"seed": -1}]
)
def test_numbers_that_are_not_allowed(photograph, config, tmp_path, options):
    with pytest.raises(UsageError, match="is not allowed; use"):
        learn_image(photograph, config, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_ends_with_an_error(photograph, config, tmp_path, monkeypatch):
    def fail(*arguments):
        raise FloatingPointError("the loss is NaN")

    monkeypatch.setattr(numbanet.Trainer, "training_step", fail)
    with pytest.raises(AppError, match="step 1: the loss is NaN; try a lower learning rate"):
        learn_image(photograph, config, n_steps=3, output=tmp_path / "out", **SMALL)


def test_what_is_due_when():
    steps = range(1, 3001)
    assert [n for n in steps if picture_due(n)] == [10, 100, 1000]
    evaluations = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000]
    assert [n for n in steps if milestone_due(n)] == evaluations
    assert all(milestone_due(n) for n in steps if picture_due(n))
    assert all(loss_due(n) for n in steps if milestone_due(n))
    assert sum(map(loss_due, range(1, 10**5 + 1))) < 1300


def test_the_default_config_is_that_of_the_sample():
    made = [
        numbanet.create_from_config(2, 3, config).trainer.config()
        for config in (
            DEFAULT_CONFIG,
            numbanet.load_config(SAMPLES / "configs" / "config_hash.json"),
        )
    ]
    assert made[0] == made[1]
    assert made[0]["encoding"]["log2_hashmap_size"] == 15


def test_the_other_sample_config():
    config = numbanet.load_config(SAMPLES / "configs" / "config_oneblob.json")
    model = numbanet.create_from_config(2, 3, config)
    assert model.network.n_params == 128 * 128 + 4 * 128 * 128 + 16 * 128


def peak_memory(program, image, output):
    """Bytes that a process takes to learn an image."""
    command, environment = program
    options = ["--output", output, "--steps", "1", "--batch-size", "256", "--seed", "7"]
    process = subprocess.Popen(
        [*command, "learn-image", image, image.with_name("config.json"), *options],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_a_large_image_takes_few_bytes_a_pixel(program, config, tmp_path):
    peaks, sizes = [], [(512, 512), (2048, 2048)]  # a strip, and sixteen
    for width, height in sizes:
        path = tmp_path / f"{width}.png"
        Image.linear_gradient("L").resize((width, height)).convert("RGB").save(path)
        peaks.append(peak_memory(program, path, tmp_path / "out"))
    assert peaks[1] - peaks[0] < 24 * (2048**2 - 512**2)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"$a_{$.png", "\u00e9t\u00e9.png".encode()])
def test_names_of_images(command, photograph, config, tmp_path, name):
    path = os.fsdecode(os.path.join(os.fsencode(tmp_path), name))
    os.rename(photograph, path)
    output = tmp_path / os.fsdecode(b"out \xff")
    code, out, err = command("learn-image", path, config, "--steps", 1, "--output", output)
    assert code == 0, err
    assert "report.json" in out
    assert json.loads((output / "report.json").read_text())["image"]["path"] == path
    assert size(output / "curves.png") == (1200, 480)
    with pytest.raises(UsageError, match="1 steps already"):
        learn_image(path, n_steps=1, output=output, resume=output / "snapshot.safetensors")


def test_an_output_that_has_folders_in_its_place(photograph, config, tmp_path, monkeypatch):
    monkeypatch.setattr(numbanet.Trainer, "training_step", lambda *_: pytest.fail("it trains"))
    for name in ("snapshot.safetensors", "curves.png", "report.json", "contact_sheet.png"):
        output = tmp_path / name
        (output / name).mkdir(parents=True)
        with pytest.raises(AppError, match=rf"cannot write '.*{name}/{name}': Is a directory"):
            learn_image(photograph, config, n_steps=3, output=output, **SMALL)


def test_what_was_assumed_is_said_and_reported(command, config, tmp_path):
    path = tmp_path / "dark.tif"
    Image.fromarray(np.array([[0, 3000], [1, 4000]], np.uint16)).save(path)
    arguments = ["learn-image", path, config, "--steps", 1, "--output", tmp_path / "out"]
    code, _, err = command(*arguments)
    assert code == 0
    assert "white is taken to be 4095; for another: --white VALUE" in err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["image"]["white"] == 4095
    assert command(*arguments, "--white", 65535)[2].count("white") == 0
    for wrong in ("0", "nan", "-1"):
        assert f"white: {float(wrong)!r} is not allowed" in command(*arguments, "--white", wrong)[2]
    code, _, err = command(*arguments, "--max-pixels", 3)
    assert code == 2
    assert "2 x 2 = 4 pixels" in err
    assert "--max-pixels 4" in err
