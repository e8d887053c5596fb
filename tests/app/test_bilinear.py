"""Look-ups between pixel centres."""

import numpy as np
import pytest

from emulator.device import shared_device
from numbanet.app.bilinear import colours_of
from numbanet.targets import target_for

TARGETS = {"cpu": lambda: target_for("cpu"), "emulated": lambda: target_for(shared_device())}


@pytest.fixture(params=TARGETS)
def target(request):
    return TARGETS[request.param]()


def look_up(image, positions, target):
    colours = colours_of(image, target)(target.from_host(positions))
    return target.to_host(colours)


def naive(image, positions):
    height, width = image.shape[:2]
    x, y = positions[:, 0] * width - 0.5, positions[:, 1] * height - 0.5
    colours = np.zeros((len(positions), 3))
    for i in range(len(positions)):
        for row in range(-1, height + 1):
            for column in range(-1, width + 1):
                weight = max(0, 1 - abs(x[i] - column)) * max(0, 1 - abs(y[i] - row))
                pixel = image[min(max(row, 0), height - 1), min(max(column, 0), width - 1)]
                colours[i] += weight * pixel.astype(np.float64)
    return colours


def test_agrees_with_tent_weights_over_all_pixels(target):
    rng = np.random.default_rng(1)
    for shape in [(5, 7, 3), (1, 4, 3), (3, 1, 3), (1, 1, 3)]:
        image = rng.random(shape, dtype=np.float32)
        borders = np.array([[0, 0], [0.999999, 0.999999], [0.5, 0], [0, 0.5]], np.float32)
        positions = np.concatenate([rng.random((50, 2), dtype=np.float32), borders])
        expected = naive(image, positions.astype(np.float64))
        np.testing.assert_allclose(look_up(image, positions, target), expected, atol=3e-6)


def test_pixel_centres_give_the_pixels(target):
    rng = np.random.default_rng(2)
    image = rng.random((8, 16, 3), dtype=np.float32)
    x, y = np.meshgrid((np.arange(16) + 0.5) / 16, (np.arange(8) + 0.5) / 8)
    positions = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    np.testing.assert_array_equal(look_up(image, positions, target), image.reshape(-1, 3))


def test_no_positions(target):
    image, positions = np.zeros((2, 2, 3), np.float32), np.zeros((0, 2), np.float32)
    assert look_up(image, positions, target).shape == (0, 3)
