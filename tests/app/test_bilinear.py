"""Look-ups between pixel centres."""

from pathlib import Path

import numpy as np
import pytest

from emulator.device import shared_device
from numbanet.app.bilinear import colours_of
from numbanet.app.photograph import Photograph
from numbanet.targets import target_for

TARGETS = {"cpu": lambda: target_for("cpu"), "emulated": lambda: target_for(shared_device())}


@pytest.fixture(params=TARGETS)
def target(request):
    return TARGETS[request.param]()


def photograph_of(rng, kind, height, width):
    """Random pixels of one of the two kinds; the fourth byte of colours means nothing."""
    if kind == "colour":
        pixels = rng.integers(0, 1 << 32, (height, width), np.uint32)
    else:
        pixels = rng.random((height, width), dtype=np.float32)
    return Photograph(Path("photograph"), pixels)


def look_up(photograph, positions, target):
    colours = colours_of(photograph, target)(target.from_host(positions))
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


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_agrees_with_tent_weights_over_all_pixels(target, kind):
    rng = np.random.default_rng(1)
    for size in [(5, 7), (1, 4), (3, 1), (1, 1)]:
        photograph = photograph_of(rng, kind, *size)
        borders = np.array([[0, 0], [0.999999, 0.999999], [0.5, 0], [0, 0.5]], np.float32)
        positions = np.concatenate([rng.random((50, 2), dtype=np.float32), borders])
        expected = naive(photograph.linear(), positions.astype(np.float64))
        found = look_up(photograph, positions, target)
        np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("kind", ["colour", "grey"])
def test_pixel_centres_give_the_pixels(target, kind):
    photograph = photograph_of(np.random.default_rng(2), kind, 8, 16)
    found = look_up(photograph, photograph.centres(0, 8), target)
    np.testing.assert_array_equal(found, photograph.linear().reshape(-1, 3))


def test_no_positions(target):
    photograph = Photograph(Path("photograph"), np.zeros((2, 2), np.uint32))
    assert look_up(photograph, np.zeros((0, 2), np.float32), target).shape == (0, 3)
