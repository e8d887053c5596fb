"""Colours of an image between its pixels.

Position (0, 0) is the top left corner and (1, 1) the bottom right one. The centre of pixel i of n
lies at (i + 0.5) / n; between centres colours are interpolated linearly along both axes, beyond the
outermost centres the border pixels continue. Each sum below is one fused multiply-add, so that all
targets that have those round alike.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.device import HALF, exact, floor_to_int
from numbanet.storage.views import float_matrix, float_vector
from numbanet.target import AbstractTarget

LOOK_UP = ("uint64", "int64", "int64", "uint64", "uint64", "uint32")


@exact
def mix(a, b, s):
    return a + s * (b - a)


@exact
def bilinear(image, height, width, x, y, rgb):  # image [height * width * 3], rgb [3]
    u, v = x * np.float32(width) - HALF, y * np.float32(height) - HALF
    column, row = floor_to_int(u), floor_to_int(v)
    s, t = u - np.float32(column), v - np.float32(row)
    left, right = min(max(column, 0), width - 1), min(max(column + 1, 0), width - 1)
    top, bottom = min(max(row, 0), height - 1), min(max(row + 1, 0), height - 1)
    top_left, top_right = (top * width + left) * 3, (top * width + right) * 3
    bottom_left, bottom_right = (bottom * width + left) * 3, (bottom * width + right) * 3
    for c in range(3):
        upper = mix(image[top_left + c], image[top_right + c], s)
        lower = mix(image[bottom_left + c], image[bottom_right + c], s)
        rgb[c] = mix(upper, lower, t)


@ParallelKernel
def look_up_rows(image, height, width, positions, colours):
    for i in prange(positions.shape[0]):
        bilinear(image, height, width, positions[i, 0], positions[i, 1], colours[i])


def look_up(pimage, height, width, ppositions, pcolours, n):
    """The CUDA kernel, one thread per position."""
    image = float_vector(pimage, height * width * 3)
    positions, colours = float_matrix(ppositions, n, 2), float_matrix(pcolours, n, 3)
    i = thread_number()
    if i < n:
        bilinear(image, height, width, positions[i, 0], positions[i, 1], colours[i])


def launcher(device: Any) -> Callable:
    """Function like look_up_rows, for arrays on a GPU."""
    kernel = Kernel(device, look_up, LOOK_UP)

    def launch(image, height, width, positions, colours):
        n = len(positions)
        arrays = positions.address, colours.address
        kernel.over(n, image.address, height, width, *arrays, n)

    return launch


def colours_of(image: np.ndarray, target: AbstractTarget) -> Callable[[Any], Any]:
    """Function from positions [n, 2] (x, y) to the colours [n, 3] of an image there.

    Args:
        image: float32 [height, width, 3].
        target: where the positions and the colours are.
    """
    height, width, _ = image.shape
    pixels = target.vector(image.reshape(-1), "image", image.size)
    run = look_up_rows if isinstance(target, CpuTarget) else launcher(target.device)

    def colours_at(positions):
        colours = target.empty(len(positions), 3)
        run(pixels, height, width, positions, colours)
        return colours

    return colours_at
