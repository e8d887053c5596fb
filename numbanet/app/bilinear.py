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

from numbanet.app.photograph import LINEAR, Photograph, to_linear
from numbanet.cuda.launch.types import UInt
from numbanet.device import HALF, exact, floor_to_int
from numbanet.target import AbstractTarget
from numbanet.volumes.launch import Floats, Job, Rows, UInts


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
def look_up_job(value: Callable) -> Job:
    """Job of a position, for a kind of pixels."""
    look_up, pixel = bilinear(value), UInts if value is colour else Floats

    @Job
    def look_up_position(
        i, pixels: pixel, table: Floats, height: UInt, width: UInt, positions: Rows(2),
        colours: Rows(3),
    ):  # fmt: skip
        sizes = np.int64(height), np.int64(width)
        look_up(pixels, table, *sizes, positions[i, 0], positions[i, 1], colours[i])

    return look_up_position


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
    pixels, table = pixels_of(photograph), LINEAR
    if target.name != "cpu":  # which reads them where they are
        pixels, table = target.from_host(pixels), target.from_host(table)

    def colours_at(positions):
        n = len(positions)
        colours = target.empty(n, 3)
        look_up_job(value)(target, n, pixels, table, height, width, positions, colours)
        return colours

    return colours_at
