"""Colours of an image between its pixels.

Position (0, 0) is the top left corner and (1, 1) the bottom right one. The centre of pixel i of n
lies at (i + 0.5) / n; between centres colours are interpolated linearly along both axes, beyond the
outermost centres the border pixels continue.
"""

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.device import HALF, ONE, device, floor_to_int


@device
def bilinear(image, x, y, rgb):  # image [height, width, 3], rgb [3]
    last_row, last_column = image.shape[0] - 1, image.shape[1] - 1
    u = x * np.float32(image.shape[1]) - HALF
    v = y * np.float32(image.shape[0]) - HALF
    column, row = floor_to_int(u), floor_to_int(v)
    s, t = u - np.float32(column), v - np.float32(row)
    left, right = min(max(column, 0), last_column), min(max(column + 1, 0), last_column)
    top, bottom = min(max(row, 0), last_row), min(max(row + 1, 0), last_row)
    for c in range(3):
        upper = (ONE - s) * image[top, left, c] + s * image[top, right, c]
        lower = (ONE - s) * image[bottom, left, c] + s * image[bottom, right, c]
        rgb[c] = (ONE - t) * upper + t * lower


@ParallelKernel
def bilinear_rows(image, positions, colours):
    for i in prange(positions.shape[0]):
        bilinear(image, positions[i, 0], positions[i, 1], colours[i])


def look_up(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The colours [n, 3] of a float32 image [height, width, 3] at `positions` [n, 2] (x, y)."""
    colours = np.empty((len(positions), 3), np.float32)
    bilinear_rows(image, positions, colours)
    return colours
