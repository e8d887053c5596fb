"""The main job on an emulated GPU, against the same job on the CPU."""

import json

import numpy as np
import pytest
from llvmlite.binding import get_host_cpu_features
from PIL import Image

import numbanet
from emulator.device import shared_device
from numbanet import run
from numbanet.app.errors import AppError
from numbanet.app.image_file import read_photograph
from numbanet.app.image_job import started
from numbanet.app.learn_image import learn_image
from numbanet.random import Pcg32

BATCH_SIZE, SEED = 256, 7
SMALL = {"batch_size": BATCH_SIZE, "seed": SEED}
N_STEPS = 5
LOSS_TOLERANCES = {"float32": 1e-4, "float16": 1e-3, "bfloat16": 1e-3}  # relative; the halves: 4e-4
# Positions agree everywhere. Colours do where the CPU has fused multiply-adds, as GPUs have.
COLOUR_TOLERANCE = 0 if get_host_cpu_features().get("fma", True) else 1e-5


@pytest.fixture
def photograph(tmp_path):
    x, y = np.meshgrid(np.linspace(0, 255, 12), np.linspace(0, 255, 9))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    path = tmp_path / "photograph.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def batches(monkeypatch):
    """The (positions, colours) of all steps."""
    seen = []
    step = numbanet.Trainer.training_step

    def training_step(self, positions, colours):
        seen.append((np.array(positions), np.array(colours)))
        return step(self, positions, colours)

    monkeypatch.setattr(numbanet.Trainer, "training_step", training_step)
    return seen


def report_of(result):
    return json.loads(result.report.read_text())


@pytest.mark.parametrize("precision", LOSS_TOLERANCES)
def test_follows_the_cpu(photograph, config, tmp_path, batches, precision):
    gpu = {"device": shared_device(), "precision": precision}
    expected, result = (
        learn_image(photograph, config, n_steps=N_STEPS, output=tmp_path / name, **SMALL, **options)
        for name, options in (("cpu", {"device": "cpu"}), ("gpu", gpu))
    )
    assert len(batches) == 2 * N_STEPS
    for on_cpu, on_gpu in zip(batches[:N_STEPS], batches[N_STEPS:], strict=True):
        np.testing.assert_array_equal(on_gpu[0], on_cpu[0])
        np.testing.assert_allclose(on_gpu[1], on_cpu[1], rtol=0, atol=COLOUR_TOLERANCE)
    found, wanted = report_of(result), report_of(expected)
    for one, two in zip(found["losses"], wanted["losses"], strict=True):
        assert one["step"] == two["step"]
        assert one["loss"] == pytest.approx(two["loss"], rel=LOSS_TOLERANCES[precision])
    for one, two in zip(found["psnrs"], wanted["psnrs"], strict=True):
        assert one["psnr"] == pytest.approx(two["psnr"], abs=0.3)
    assert wanted["psnrs"][-1]["psnr"] > wanted["psnrs"][0]["psnr"] + 0.5
    assert found["model"]["device"] == f"cuda:{shared_device().ordinal}"
    assert found["model"]["device_name"] == "Emulated GPU"
    assert found["model"]["precision"] == precision
    assert found["timings"]["timed_steps"] == N_STEPS - 1
    assert found["timings"]["training_seconds"] > 0


def test_a_snapshot_goes_on_with_the_same_numbers(photograph, config, tmp_path, batches):
    gpu = {"device": shared_device(), "precision": "float32"}
    first = learn_image(photograph, config, n_steps=1, output=tmp_path / "out", **SMALL, **gpu)
    last = learn_image(photograph, n_steps=2, output=tmp_path / "out", resume=first.snapshot, **gpu)
    rng = Pcg32(SEED)
    for positions, _ in batches:
        np.testing.assert_array_equal(positions.reshape(-1), rng.device_uniform(2 * BATCH_SIZE))
    saved = numbanet.load(last.snapshot, device="cpu")
    assert saved.metadata["learn_image"]["course"]["rng_state"] == rng.state
    assert saved.trainer.n_steps == 2
    assert [entry["step"] for entry in report_of(last)["losses"]] == [1, 2]


@pytest.fixture
def under_way(photograph, config, monkeypatch):
    """A training that asks for the loss when it is told to, and at no step by itself."""
    monkeypatch.setattr(run, "loss_due", lambda step: False)
    photograph, config = read_photograph(photograph), numbanet.load_config(config)
    training = started(photograph, config, device=shared_device(), precision="float32", **SMALL)
    return run.Run(training, None, 100, training.course)


def test_steps_wait_for_nothing_and_send_nothing(under_way, monkeypatch):
    device = shared_device()
    under_way.advance()  # the first step sends the photograph and the optimizer's options
    waits = device.synchronizations

    def send(address, host):
        pytest.fail("a step copies from the host")

    monkeypatch.setattr(device, "copy_to_device", send)
    under_way.advance()
    under_way.advance()
    assert device.synchronizations == waits
    history = under_way.history
    assert history.timed_steps == 0
    under_way.read_loss()
    assert device.synchronizations > waits
    assert history.timed_steps == 2
    assert [step for step, _ in history.losses] == [1, 3]
    assert history.losses[-1] == (3, float(under_way.loss))


def test_a_skipped_step_is_noticed_with_the_loss(under_way):
    under_way.advance()
    network = under_way.trainer.network
    network.params = np.full(network.n_params, np.nan, np.float32)
    under_way.advance()
    with pytest.raises(AppError, match=r"step 2: .* infinite or NaN; try a lower learning rate"):
        under_way.read_loss()
