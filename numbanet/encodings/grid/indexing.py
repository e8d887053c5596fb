"""Position of a sample in the lattice of a level, and the table entries of its corners.

Levels whose vertices fit into the table number them, first dimension fastest; tiled levels do so
modulo the size of the table; hashed levels scramble the coordinates (Teschner et al. 2003; Müller
et al. 2022, section 3). Coordinates are uint32 and wrap, so any input leads to a valid entry.
"""

from functools import cache, reduce
from typing import Any, NamedTuple

import numpy as np

from numbanet.device import HALF, device, float_bits, floor_to_int, in_register
from numbanet.random import Pcg32, pcg32_advance, pcg32_output

HASHES = ("CoherentPrime", "Prime", "ReversedPrime", "Rng", "BaseConvert")
# Linear ones are WIDE with 2^32 vertices or more, else NEAR where the vertices of a cell are no
# further apart than the table is large.
NEAR, LINEAR, WIDE, HASHED = (np.int32(k) for k in range(4))

_LARGE_PRIMES = (2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737)
_FIRST_PRIME = 1958374283
_PRIMES = {
    "CoherentPrime": (1, *_LARGE_PRIMES),  # keeps neighbours along the first dimension together
    "Prime": (_FIRST_PRIME, *_LARGE_PRIMES),
    "ReversedPrime": (*_LARGE_PRIMES[::-1], _FIRST_PRIME),
}


class Level(NamedTuple):
    """Constants of a level for device code.

    The first four are numbers, or tuples with one for each dimension: see `along`.
    """

    scale: Any
    spacing: Any  # of the vertices, where positions are fixed-point numbers
    spacing_reciprocal: Any
    resolution: Any
    offset: np.uint32  # of the level's table, in entries
    size: np.uint32  # of the level's table, in entries
    size_reciprocal: np.uint32
    indexing: np.int32  # NEAR, LINEAR, WIDE or HASHED


@device
def of_all_axes(number, d):
    return number


@device
def of_axis(numbers, d):
    return numbers[d]


def along(per_axis: bool):
    """Device function (of a level, d): what it is along dimension d."""
    return of_axis if per_axis else of_all_axes


def reciprocal(divisor: int) -> np.uint32:
    """Constant that `divide` multiplies with."""
    return np.uint32((2**32 - 1) // divisor)


@device
def divide(n, divisor, reciprocal):  # uint32 quotient and rest, without a division or a branch
    quotient = np.uint32((np.uint64(n) * np.uint64(reciprocal)) >> np.uint64(32))
    rest = n - quotient * divisor  # the quotient may be one too small
    return np.uint32(quotient + (rest >= divisor)), min(rest, rest - divisor)


FAR = np.float32(2.0**30)  # there float32 knows whole numbers only, and int32 still holds them


@cache
def constant_limit(limit: np.float32):
    """Device function (level): the limit that is known when a kernel is compiled."""

    @device
    def constant_limit(level):
        return limit

    return constant_limit


@cache
def float_position(limit_of, per_axis: bool):
    """Device function (level, d, x): the cell of coordinate d, and the place in it.

    Beyond the limit x counts as the limit, in all levels alike: one comparison serves them all.
    """
    along_ = along(per_axis)

    @device
    def float_position(level, d, x):
        limit = limit_of(level)
        x = min(max(x, -limit), limit)
        position = along_(level.scale, d) * x + in_register(HALF, x)
        cell = floor_to_int(position)
        return np.uint32(cell), position - np.float32(cell)

    return float_position


@cache
def fixed_position(per_axis: bool):
    """float_position for x whose bits are a position in units of 2^-32."""
    along_ = along(per_axis)

    @device
    def fixed_position(level, d, x):
        spacing = along_(level.spacing, d)
        cell, rest = divide(float_bits(x), spacing, along_(level.spacing_reciprocal, d))
        half = spacing >> 1
        to_next = spacing - half
        if rest >= to_next:
            cell, rest = cell + 1, rest - to_next
        else:
            rest += half
        return cell, np.float32(rest) * (along_(level.scale, d) * np.float32(2.0**-32))

    return fixed_position


@device
def vertex(cell, corner, d):
    return cell[d] + ((corner >> d) & 1)


@cache
def linear_index(n_dims: int, per_axis: bool):
    """Device function (level, cell): number of a cell's first vertex, modulo 2^32."""
    along_ = along(per_axis)

    @device
    def linear_index(level, cell):
        index, stride = np.uint32(0), np.uint32(1)
        for d in range(n_dims):
            index += cell[d] * stride
            stride *= along_(level.resolution, d)
        return index

    return linear_index


@cache
def distance_to_corner(n_dims: int, per_axis: bool):
    """Device function (level, corner): its number less that of the first vertex.

    Without a loop, so that it is a constant where the level is, for every compiler.
    """
    along_ = along(per_axis)

    @device
    def no_distance(level, corner):
        return np.uint32(0)

    def then(before, d):
        @device
        def distance_to_corner(level, corner):
            further = before(level, corner) * along_(level.resolution, d)
            return further + ((corner >> d) & 1)

        return distance_to_corner

    return reduce(then, reversed(range(n_dims)), no_distance)


@cache
def linear_entry(n_dims: int, all_near: bool, per_axis: bool):
    """Device function (level, cell, corner): number of a vertex, modulo the size of the table.

    One division serves all corners where they are near: the first one's entry and the distance are
    then less than twice the size.
    """
    linear, distance_to = linear_index(n_dims, per_axis), distance_to_corner(n_dims, per_axis)

    @device
    def linear_entry(level, cell, corner):
        first, distance = linear(level, cell), distance_to(level, corner)
        number = first + distance
        if not all_near and level.indexing == LINEAR:
            return divide(number, level.size, level.size_reciprocal)[1]
        entry = divide(first, level.size, level.size_reciprocal)[1]
        if corner > 0:
            entry = min(entry + distance, number)  # less where the number has wrapped
            entry = min(entry, entry - level.size)
        return entry

    return linear_entry


@cache
def wide_index(n_dims: int, per_axis: bool):
    """Device function (level, cell, corner): number of a vertex, modulo the size of the table."""
    along_ = along(per_axis)

    @device
    def wide_index(level, cell, corner):
        index = np.uint64(0)
        for k in range(n_dims):
            d = n_dims - 1 - k
            coordinate, n = np.uint64(vertex(cell, corner, d)), along_(level.resolution, d)
            index = (index * np.uint64(n) + coordinate) % np.uint64(level.size)
        return np.uint32(index)

    return wide_index


@cache
def hash_function(name: str, n_dims: int):
    """Device function (cell, corner) -> uint32 for one of HASHES."""
    if name == "Rng":
        return _rng_hash(n_dims)
    if name == "BaseConvert":
        return _base_convert_hash(n_dims)
    primes = tuple(np.uint32(prime) for prime in _PRIMES[name])

    @device
    def prime_hash(cell, corner):
        index = np.uint32(0)
        for d in range(n_dims):
            index ^= vertex(cell, corner, d) * primes[d]
        return index

    return prime_hash


def _rng_hash(n_dims):
    shift = np.uint64(64 // n_dims)
    seeded = np.uint64(Pcg32(1337).state)

    @device
    def rng_hash(cell, corner):
        step = np.uint64(0)
        for d in range(n_dims):
            step ^= np.uint64(vertex(cell, corner, d)) << (np.uint64(d) * shift)
        return pcg32_output(pcg32_advance(seeded, step))

    return rng_hash


def _base_convert_hash(n_dims):
    base = 2531011

    @device
    def base_convert_hash(cell, corner):
        index = np.uint32(0)
        for d in range(n_dims):
            index = (index + vertex(cell, corner, d)) * base
        return index

    return base_convert_hash


@cache
def table_entry(n_dims: int, hash_name: str, indexings: frozenset[int], per_axis: bool = False):
    """Device function (level, cell, corner): the entry, counted from the start of the level's.

    `indexings` are those that occur; code for the others is left out.
    """
    linear = linear_entry(n_dims, int(LINEAR) not in indexings, per_axis)
    wide = wide_index(n_dims, per_axis)
    hashed = hash_function(hash_name, n_dims)
    any_hashed, any_wide = int(HASHED) in indexings, int(WIDE) in indexings
    all_hashed = indexings == {int(HASHED)}

    @device
    def table_entry(level, cell, corner):
        if all_hashed or (any_hashed and level.indexing == HASHED):
            index = hashed(cell, corner) & (level.size - 1)
        elif any_wide and level.indexing == WIDE:
            index = wide(level, cell, corner)
        else:
            index = linear(level, cell, corner)
        return index

    return table_entry
