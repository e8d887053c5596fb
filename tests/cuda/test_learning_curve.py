"""A photograph is learned on a GPU as it is on the CPU."""

from pathlib import Path

import numpy as np
import pytest
from models import make_config, mlp

import numbanet

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

PHOTOGRAPH = Path(__file__).parents[2] / "samples/images/astronaut.png"
GRID = {
    "otype": "HashGrid",
    "n_levels": 8,
    "n_features_per_level": 2,
    "log2_hashmap_size": 12,
    "base_resolution": 8,
    "per_level_scale": 1.5,
}
CONFIG = {
    **make_config(GRID, mlp("FullyFusedMLP", 64, 2)),
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15, "l2_reg": 1e-6},
}
STEPS, BATCH = 60, 512


@pytest.fixture(scope="module")
def photograph():
    with Image.open(PHOTOGRAPH) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


def pixels(photograph, rng, n):
    """Random positions and the colours there."""
    x = rng.random((n, 2), np.float32)
    row, column = (np.int64(x[:, axis] * photograph.shape[1 - axis]) for axis in (1, 0))
    return x, photograph[row, column]


def curve(photograph, device):
    """PSNR at 1000 positions, in dB, after every 10 steps."""
    trainer = numbanet.create_from_config(2, 3, CONFIG, device=device).trainer
    rng, values = np.random.default_rng(1), []
    x, colours = pixels(photograph, np.random.default_rng(2), 1000)
    for step in range(1, STEPS + 1):
        trainer.training_step(*pixels(photograph, rng, BATCH))
        if step % 10 == 0:
            y = trainer.inference(x)
            error = np.mean((trainer.network.target.to_host(y) - colours) ** 2)
            values.append(-10 * np.log10(error))
    return np.array(values)


def test_the_curve_is_that_of_the_cpu(photograph, cuda_device):
    """Halves, and sums in another order, make little difference."""
    on_cpu, on_gpu = curve(photograph, "cpu"), curve(photograph, cuda_device)
    assert on_cpu[-1] > 19
    assert np.abs(on_gpu - on_cpu).max() < 0.3


def waves(x):
    return 0.5 + 0.5 * np.sin(2 * np.pi * x @ np.array([[3, 1], [1, 4], [2, 2]]))


def distance(x):
    """To a torus."""
    x = x - 0.5
    return np.hypot(np.hypot(x[:, 0], x[:, 1]) - 0.3, x[:, 2])[:, None] - 0.1


@pytest.mark.parametrize("field", [waves, distance])
def test_integer_sums_learn_as_well(field, cuda_device):
    """Gradients of tables in 14 bits, rounded at random, beside sums of float32."""
    encoding = {**GRID, "n_levels": 4, "log2_hashmap_size": 10, "base_resolution": 4}
    config = make_config(encoding, mlp("FullyFusedMLP", 16, 1), optimizer=CONFIG["optimizer"])
    losses = []
    for deterministic in (False, True):
        model = numbanet.create_from_config(
            3, field(np.zeros((1, 3))).shape[1], config, device=cuda_device,
            deterministic=deterministic,
        )  # fmt: skip
        rng, found = np.random.default_rng(5), []
        for _ in range(50):
            x = rng.random((192, 3), np.float32)
            found.append(float(model.trainer.training_step(x, field(x))))
        losses.append(np.mean(found[-10:]))
        assert losses[-1] < 0.3 * found[0]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
