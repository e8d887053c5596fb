"""Position of a point in an occupancy grid, for device code.

A grid covers a box with `resolution` cells along each axis; level k covers 2^k times as much around
the same centre. A word of 32 bits is a brick of 4 x 4 x 2 cells, so that a ray leaves an empty
brick in one step, as those of Mueller et al. 2022 (instant-ngp) leave coarse cells.

Points are in units of half the box, from its centre: level 0 is [-1, 1]^3. The resolution is a
multiple of 4.
"""

import numpy as np

from numbanet.device import HALF, ONE, device, float_bits, floor_to_int, power_of_two

CELLS = 32  # of a brick: 4 x 4 x 2
EXPONENT_OF_HALF = 126  # in the bits of a float32
TINY = np.float32(1e-12)


@device
def level_of(x, y, z, n_levels):
    """Finest level that contains the point, as a number; the coarsest for points outside."""
    size = max(abs(x), abs(y), abs(z))
    level = np.int32(float_bits(size) >> 23) - np.int32(EXPONENT_OF_HALF)
    return min(max(level, np.int32(0)), np.int32(n_levels) - np.int32(1))


@device
def cell_along(x, scale, resolution):
    """Number of a cell along an axis, clamped to the grid, and x in units of cells."""
    position = (x * scale + ONE) * (HALF * np.float32(resolution))
    cell = min(max(floor_to_int(position), np.int32(0)), np.int32(resolution) - np.int32(1))
    return np.uint32(cell), position


@device
def word_of(x, y, z, level, resolution):
    """Word of a brick, from the numbers of one of its cells."""
    n_across, n_deep = resolution >> 2, resolution >> 1
    row = (level * n_deep + (z >> 1)) * n_across + (y >> 2)
    return row * n_across + (x >> 2)


@device
def bit_of(x, y, z):
    return ((z & 1) << 4) | ((y & 3) << 2) | (x & 3)


@device
def cell_of(i, resolution):
    """Position (level, x, y, z) of cell i, where cell 32 w + b is bit b of word w."""
    bit, word = i & 31, i >> 5
    n_across, n_deep = resolution >> 2, resolution >> 1
    x = (word % n_across) * 4 + (bit & 3)
    word //= n_across
    y = (word % n_across) * 4 + ((bit >> 2) & 3)
    word //= n_across
    z = (word % n_deep) * 2 + (bit >> 4)
    return word // n_deep, x, y, z


@device
def coordinate(cell, offset, resolution, level):
    """Point at an offset in [0, 1) within a cell, in units of half the box."""
    inside = (np.float32(cell) + offset) * (np.float32(2.0) / np.float32(resolution)) - ONE
    return inside * power_of_two(level)


@device
def nonzero(x):
    """Return x, moved away from 0 so that its reciprocal is finite."""
    small = TINY if x >= np.float32(0.0) else -TINY
    return small if abs(x) < TINY else x


@device
def to_border(position, cell, size, rate):
    """Length of the ray to the border of the `size` cells around it, at `rate` cells per unit."""
    first = np.float32(cell - cell % size)
    border = first + np.float32(size) if rate > np.float32(0.0) else first
    return max((border - position) / rate, np.float32(0.0))
