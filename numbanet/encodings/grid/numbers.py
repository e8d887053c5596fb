"""Levels of a grid as numbers that the CPU's kernels read at run time.

So grids whose tables differ have the same compiled code. An entry of `numbers` is the value of an
unsigned integer or the bits of a float32.
"""

from functools import cache, reduce
from typing import Any, NamedTuple

import numpy as np

from numbanet.device import device, float_from_bits
from numbanet.encodings.grid.indexing import Level


class NumberedLevel(NamedTuple):
    """Level with the largest input that is not clamped, which is the same for all levels."""

    scale: Any
    spacing: Any
    spacing_reciprocal: Any
    resolution: Any
    offset: np.uint32
    size: np.uint32
    size_reciprocal: np.uint32
    indexing: np.int32
    limit: np.float32


N_LATTICE = 4  # of them are of the lattice, maybe with one for each dimension


def words(level: Level, limit: np.float32) -> tuple[int, ...]:
    """Numbers of a level, each as 32 bits."""
    fields = (np.atleast_1d(numbers).view(np.uint32) for numbers in (*level, limit))
    return tuple(int(word) for numbers in fields for word in numbers)


@device
def unsigned_at(numbers, i):
    return np.uint32(numbers[i])


@device
def float_at(numbers, i):
    return float_from_bits(np.uint32(numbers[i]))


@cache
def in_lattice(at, n_axes: int):
    """Device function (numbers, i): a number, or a tuple of one for each axis, from place i on."""
    if n_axes == 0:
        return at

    def then(before, d):
        @device
        def all_axes(numbers, i):
            return (*before(numbers, i), at(numbers, i + np.uintp(d)))

        return all_axes

    @device
    def first_axis(numbers, i):
        return (at(numbers, i),)

    return reduce(then, range(1, n_axes), first_axis)


@cache
def numbered_level(n_axes: int = 0):
    """Device function (k, params): level k, with tuples for so many axes, or numbers for all."""
    n = max(n_axes, 1)
    n_words = N_LATTICE * n + len(NumberedLevel._fields) - N_LATTICE
    floats, integers = in_lattice(float_at, n_axes), in_lattice(unsigned_at, n_axes)

    @device
    def numbered_level(k, params):
        numbers = params[1]
        i = np.uintp(k * n_words)  # an unsigned index is not tested for counting from the end
        rest = i + np.uintp(N_LATTICE * n)
        return NumberedLevel(
            floats(numbers, i),
            integers(numbers, i + np.uintp(n)),
            integers(numbers, i + np.uintp(2 * n)),
            integers(numbers, i + np.uintp(3 * n)),
            unsigned_at(numbers, rest),
            unsigned_at(numbers, rest + np.uintp(1)),
            unsigned_at(numbers, rest + np.uintp(2)),
            np.int32(numbers[rest + np.uintp(3)]),
            float_at(numbers, rest + np.uintp(4)),
        )

    return numbered_level


@device
def numbered_limit(level):
    return level.limit


@device
def numbered_values(params):
    return params[0]
