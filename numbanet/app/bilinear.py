"""Colours of an image between its pixels.

Position (0, 0) is the top left corner and (1, 1) the bottom right one. The centre of pixel i of n
lies at (i + 0.5) / n; between centres colours are interpolated linearly along both axes, beyond the
outermost centres the border pixels continue. Each sum below is one fused multiply-add, so that all
targets that have those round alike.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import prange

from numbanet.app.photograph import LINEAR, Photograph, to_linear
from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.device import HALF, exact, floor_to_int
from numbanet.storage.views import float_matrix, float_vector, uint32_vector
from numbanet.target import AbstractTarget

LOOK_UP = ("uint64", "uint64", "int64", "int64", "uint64", "uint64", "uint32")


# The linear light of channel c of pixel i, from the two kinds of pixels that a Photograph has.
@exact
def colour(pixels, table, i, c):  # pixels uint32 [height * width], table [256]
    return table[(pixels[i] >> np.uint32(8 * c)) & np.uint32(255)]


@exact
def grey(pixels, table, i, c):  # pixels float32 [height * width], in linear light
    return pixels[i]


@exact
def mix(a, b, s):
    return a + s * (b - a)


@cache
def bilinear(value: Callable) -> Callable:
    """Device function for a kind of pixels: the colour at a position."""

    @exact
    def look_up(pixels, table, height, width, x, y, rgb):  # rgb [3]
        u, v = x * np.float32(width) - HALF, y * np.float32(height) - HALF
        column, row = floor_to_int(u), floor_to_int(v)
        s, t = u - np.float32(column), v - np.float32(row)
        left, right = min(max(column, 0), width - 1), min(max(column + 1, 0), width - 1)
        top, bottom = min(max(row, 0), height - 1), min(max(row + 1, 0), height - 1)
        top_left, top_right = top * width + left, top * width + right
        bottom_left, bottom_right = bottom * width + left, bottom * width + right
        for c in range(3):
            upper = mix(value(pixels, table, top_left, c), value(pixels, table, top_right, c), s)
            lower = mix(
                value(pixels, table, bottom_left, c), value(pixels, table, bottom_right, c), s
            )
            rgb[c] = mix(upper, lower, t)

    return look_up


@cache
def host_kernel(value: Callable) -> ParallelKernel:
    look_up = bilinear(value)

    @ParallelKernel
    def look_up_rows(pixels, table, height, width, positions, colours):
        for i in prange(positions.shape[0]):
            look_up(pixels, table, height, width, positions[i, 0], positions[i, 1], colours[i])

    return look_up_rows


@cache
def device_kernel(value: Callable) -> Callable:
    """Kernel of a GPU with one position per thread."""
    look_up = bilinear(value)
    vector = uint32_vector if value is colour else float_vector

    def look_up_position(ppixels, ptable, height, width, ppositions, pcolours, n):
        pixels, table = vector(ppixels, height * width), float_vector(ptable, 256)
        positions, colours = float_matrix(ppositions, n, 2), float_matrix(pcolours, n, 3)
        i = thread_number()
        if i < n:
            look_up(pixels, table, height, width, positions[i, 0], positions[i, 1], colours[i])

    return look_up_position


def launcher(device: Any, value: Callable) -> Callable:
    """Function like host_kernel(value), for arrays on a GPU."""
    kernel = Kernel(device, device_kernel(value), argument_types=LOOK_UP)

    def launch(pixels, table, height, width, positions, colours):
        n = len(positions)
        arrays = positions.address, colours.address
        kernel.over(n, pixels.address, table.address, height, width, *arrays, n)

    return launch


def pixels_of(photograph: Photograph) -> np.ndarray:
    """Pixels as the kernels read them: the photograph's own, or grey in linear light."""
    if photograph.in_colour:
        return photograph.pixels.reshape(-1)
    linear = np.empty_like(photograph.pixels)
    for first, last in photograph.strips():
        linear[first:last] = to_linear(photograph.pixels[first:last])
    return linear.reshape(-1)


def colours_of(photograph: Photograph, target: AbstractTarget) -> Callable[[Any], Any]:
    """Function from positions [n, 2] (x, y), on a target, to the photograph's colours [n, 3]."""
    value = colour if photograph.in_colour else grey
    height, width = photograph.height, photograph.width
    pixels = pixels_of(photograph)
    if isinstance(target, CpuTarget):
        table, run = LINEAR, host_kernel(value)
    else:
        pixels, table = target.from_host(pixels), target.from_host(LINEAR)
        run = launcher(target.device, value)

    def colours_at(positions):
        colours = target.empty(len(positions), 3)
        run(pixels, table, height, width, positions, colours)
        return colours

    return colours_at
