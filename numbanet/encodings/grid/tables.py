"""Sizes of a grid's levels and of their tables, computed once, on the host.

Everything is float32 and every step is rounded: another rounding of an integral scale would change
a resolution, and with it the place of every parameter behind it.
"""

import math
from typing import Any

import numpy as np

from numbanet.encodings.grid.indexing import HASHED, LINEAR, NEAR, WIDE, Level, reciprocal
from numbanet.quantization import COMPRESSIONS, Quantized
from numbanet.registry import ConfigError, check
from numbanet.shown import shown

MAX_RESOLUTION = 2**30  # so that [0, 1] lies within the positions that are not clamped
MAX_ENTRIES = 2**32 - 1
MAX_LEVELS = 128


def levels(grid) -> tuple[Level, ...]:
    """Levels of a grid, coarse to fine.

    Raises:
        ValueError: the lattice or the tables are too large to be indexed.
    """
    levels, offset = [], 0
    for along_axes in scales(grid):
        shape = tuple(math.ceil(scale) + 1 for scale in along_axes)
        lower = f"less, or fewer levels: resolution {max(shape)} is above {MAX_RESOLUTION}"
        check(max(shape) <= MAX_RESOLUTION, "per_level_scale", grid.per_level_scale, lower)
        higher = f"more: level {len(levels)} has no vertices"
        check(min(shape) >= 1, "per_level_scale", grid.per_level_scale, higher)
        size = table_size(grid, shape)
        fewer = f"fewer, or smaller ones: there are more than {MAX_ENTRIES} table entries"
        check(offset + size <= MAX_ENTRIES, "n_levels", grid.n_levels, fewer)
        spacings = tuple(map(vertex_spacing, along_axes))
        lattice = (
            along_axes, map(np.uint32, spacings), map(reciprocal, spacings), map(np.uint32, shape)
        )  # fmt: skip
        numbers = (tuple(each) if grid.per_axis else next(iter(each)) for each in lattice)
        level = Level(
            *numbers,
            offset=np.uint32(offset),
            size=np.uint32(size),
            size_reciprocal=reciprocal(size),
            indexing=indexing(grid, shape, size),
        )
        levels.append(level)
        offset += size
    return tuple(levels)


def per_axis(grid) -> bool:
    """Whether a level has other resolutions along one dimension than along another."""
    return any(isinstance(each, tuple) for each in grid.resolutions or ())


def vertices(grid, k: int) -> tuple[int, ...]:
    """Number of vertices of level k along each dimension."""
    return tuple(map(int, np.broadcast_to(grid.levels[k].resolution, grid.n_dims)))


def default_growth(grid) -> float:
    """Default of per_level_scale: dense grids end with resolution 256."""
    if grid.type != "Dense":
        return 2.0
    n_steps = np.float32(max(grid.n_levels - 1, 1))
    log_ratio = np.float32(math.log(np.float32(256 / grid.base_resolution)))
    return float(np.float32(math.exp(log_ratio / n_steps)))


def create_resolutions(value: Any, path: str, **extra: Any) -> tuple | None:
    """Resolutions of a config: a list with an integer or a list for each level, or None."""
    if value is None:
        return None
    if not (isinstance(value, list | tuple) and 1 <= len(value) <= MAX_LEVELS):
        raise ConfigError(
            f"{path}: expected a list with the resolutions of 1 to {MAX_LEVELS} levels, got "
            f"{shown(value)}"
        )
    return tuple(create_resolution(each, f"{path}[{k}]") for k, each in enumerate(value))


def create_resolution(value: Any, path: str, alone: str = "") -> int | tuple[int, ...]:
    """Resolution of a level: an integer, or one for each dimension."""
    if isinstance(value, list | tuple) and not alone:
        each = (create_resolution(n, f"{path}[{d}]", "alone") for d, n in enumerate(value))
        return tuple(each)
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_integer and 1 <= value <= MAX_RESOLUTION):
        raise ConfigError(
            f"{path}: {shown(value)} is not allowed; use an integer from 1 to {MAX_RESOLUTION}"
        )
    return int(value)


def resolutions(grid) -> tuple | None:
    """Checked resolutions of all levels: an integer where all dimensions have the same."""
    if grid.resolutions is None:
        return None
    n = f"one for each of n_levels, which are {grid.n_levels}"
    check(len(grid.resolutions) == grid.n_levels, "resolutions", list(grid.resolutions), n)
    found = []
    for k, each in enumerate(grid.resolutions):
        axes = each if isinstance(each, tuple) else (each,) * grid.n_dims
        n = f"one number, or one for each of {grid.n_dims} inputs"
        check(len(axes) == grid.n_dims, f"resolutions[{k}]", list(axes), n)
        found.append(axes if len(set(axes)) > 1 else axes[0])
    return tuple(found)


# Metadata of the field that holds them.
INTEGER = {"type": "integer", "minimum": 1, "maximum": MAX_RESOLUTION}
RESOLUTIONS = {
    "convert": create_resolutions,
    "shown": "list of ints or lists",
    "items": {"anyOf": [INTEGER, {"type": "array", "items": INTEGER}]},
}


def scales(grid) -> list[tuple[np.float32, ...]]:
    """Cells per unit of each input, on each level."""
    if grid.resolutions is not None:
        shapes = (np.broadcast_to(each, grid.n_dims) for each in grid.resolutions)
        return [tuple(rounded_down(int(n) - 1) for n in shape) for shape in shapes]
    log2_growth = np.float32(math.log2(np.float32(grid.per_level_scale)))
    base, one = np.float32(grid.base_resolution), np.float32(1)
    exponents = (float(np.float32(level) * log2_growth) for level in range(grid.n_levels))
    along_all = (np.float32(2.0 ** min(exponent, 64.0)) * base - one for exponent in exponents)
    return [(scale,) * grid.n_dims for scale in along_all]


def rounded_down(n: int) -> np.float32:
    """Largest float32 up to n, so that no resolution is above the one that was asked for."""
    nearest = np.float32(n)
    return np.nextafter(nearest, np.float32(0)) if int(nearest) > n else nearest


def table_size(grid, shape: tuple[int, ...]) -> int:
    """Number of entries of a level's table."""
    n_vertices = min(math.prod(shape), 2**31 - 1)
    aligned = -(-n_vertices // 8) * 8
    if grid.type == "Dense":
        return aligned
    if grid.type == "Tiled":
        return min(aligned, grid.base_resolution**grid.n_dims)
    return min(aligned, 1 << grid.log2_hashmap_size)


def indexing(grid, shape: tuple[int, ...], size: int) -> np.int32:
    n_vertices = math.prod(shape)
    if grid.type == "Hash" and size < n_vertices:
        return HASHED  # the size is a power of two
    if n_vertices >= 2**32:
        return WIDE
    furthest = sum(math.prod(shape[:d]) for d in range(grid.n_dims))  # from first to last corner
    return NEAR if furthest <= size else LINEAR


def vertex_spacing(scale: np.float32) -> int:
    """Distance of neighbouring vertices in units of 2^-32."""
    if scale <= 0:
        return 2**32 - 1
    return min(max(int(np.float32(2.0**32) / scale), 1), 2**32 - 1)


def quantized(grid) -> tuple[Quantized, ...]:
    """Ranges of parameters that kernels read in few bits: each level has a scale of its own."""
    bits, width = COMPRESSIONS[grid.compression], grid.n_features_per_level
    ends = [(int(each.offset) + int(each.size)) * width for each in grid.levels] * bool(bits)
    return tuple(Quantized(*each, bits) for each in zip([0, *ends], ends, strict=False))
