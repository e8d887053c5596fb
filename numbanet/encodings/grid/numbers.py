"""Levels of a grid as numbers that the CPU's kernels read at run time.

So grids whose tables differ have the same compiled code. An entry of `numbers` is the value of an
unsigned integer or the bits of a float32.
"""

from typing import NamedTuple

import numpy as np

from numbanet.device import device, float_from_bits
from numbanet.encodings.grid.indexing import Level


class NumberedLevel(NamedTuple):
    """Level with the largest input that is not clamped, which is the same for all levels."""

    scale: np.float32
    spacing: np.uint32
    spacing_reciprocal: np.uint32
    resolution: np.uint32
    offset: np.uint32
    size: np.uint32
    size_reciprocal: np.uint32
    indexing: np.int32
    limit: np.float32


N_WORDS = len(NumberedLevel._fields)


def words(level: Level, limit: np.float32) -> tuple[int, ...]:
    """Numbers of a level, each as 32 bits."""
    return tuple(int(np.asarray(number).view(np.uint32)) for number in (*level, limit))


@device
def numbered_level(k, params):
    numbers = params[1]
    i = np.uintp(k * N_WORDS)  # an unsigned index is not tested for counting from the end
    scale, limit = numbers[i], numbers[i + np.uintp(8)]
    return NumberedLevel(
        float_from_bits(np.uint32(scale)),
        np.uint32(numbers[i + np.uintp(1)]),
        np.uint32(numbers[i + np.uintp(2)]),
        np.uint32(numbers[i + np.uintp(3)]),
        np.uint32(numbers[i + np.uintp(4)]),
        np.uint32(numbers[i + np.uintp(5)]),
        np.uint32(numbers[i + np.uintp(6)]),
        np.int32(numbers[i + np.uintp(7)]),
        float_from_bits(np.uint32(limit)),
    )


@device
def numbered_limit(level):
    return level.limit


@device
def numbered_values(params):
    return params[0]
