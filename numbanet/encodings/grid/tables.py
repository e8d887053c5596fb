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
    for scale in scales(grid):
        resolution = math.ceil(scale) + 1
        lower = f"less, or fewer levels: resolution {resolution} is above {MAX_RESOLUTION}"
        check(resolution <= MAX_RESOLUTION, "per_level_scale", grid.per_level_scale, lower)
        higher = f"more: level {len(levels)} has no vertices"
        check(resolution >= 1, "per_level_scale", grid.per_level_scale, higher)
        size = table_size(grid, resolution)
        fewer = f"fewer, or smaller ones: there are more than {MAX_ENTRIES} table entries"
        check(offset + size <= MAX_ENTRIES, "n_levels", grid.n_levels, fewer)
        spacing = vertex_spacing(scale)
        level = Level(
            scale=scale,
            spacing=np.uint32(spacing),
            spacing_reciprocal=reciprocal(spacing),
            resolution=np.uint32(resolution),
            offset=np.uint32(offset),
            size=np.uint32(size),
            size_reciprocal=reciprocal(size),
            indexing=indexing(grid, resolution, size),
        )
        levels.append(level)
        offset += size
    return tuple(levels)


def default_growth(grid) -> float:
    """Default of per_level_scale: dense grids end with resolution 256."""
    if grid.type != "Dense":
        return 2.0
    n_steps = np.float32(max(grid.n_levels - 1, 1))
    log_ratio = np.float32(math.log(np.float32(256 / grid.base_resolution)))
    return float(np.float32(math.exp(log_ratio / n_steps)))


def create_resolutions(value: Any, path: str, **extra: Any) -> tuple[int, ...] | None:
    """Resolutions of a config: a list of integers, or None."""
    if value is None:
        return None
    if not (isinstance(value, list | tuple) and 1 <= len(value) <= MAX_LEVELS):
        raise ConfigError(
            f"{path}: expected a list of 1 to {MAX_LEVELS} integers, got {shown(value)}"
        )
    for k, each in enumerate(value):
        is_integer = isinstance(each, (int, np.integer)) and not isinstance(each, bool)
        if not (is_integer and 1 <= each <= MAX_RESOLUTION):
            raise ConfigError(
                f"{path}[{k}]: {shown(each)} is not allowed; use an integer from 1 to "
                f"{MAX_RESOLUTION}"
            )
    return tuple(map(int, value))


# Metadata of the field that holds them.
RESOLUTIONS = {
    "convert": create_resolutions,
    "shown": "list of ints",
    "items": {"type": "integer", "minimum": 1, "maximum": MAX_RESOLUTION},
}


def scales(grid) -> list[np.float32]:
    """Cells per unit of the inputs, on each level."""
    if grid.resolutions is not None:
        return [np.float32(resolution - 1) for resolution in grid.resolutions]
    log2_growth = np.float32(math.log2(np.float32(grid.per_level_scale)))
    base, one = np.float32(grid.base_resolution), np.float32(1)
    exponents = (float(np.float32(level) * log2_growth) for level in range(grid.n_levels))
    return [np.float32(2.0 ** min(exponent, 64.0)) * base - one for exponent in exponents]


def table_size(grid, resolution: int) -> int:
    """Number of entries of a level's table."""
    n_vertices = min(resolution**grid.n_dims, 2**31 - 1)
    aligned = -(-n_vertices // 8) * 8
    if grid.type == "Dense":
        return aligned
    if grid.type == "Tiled":
        return min(aligned, grid.base_resolution**grid.n_dims)
    return min(aligned, 1 << grid.log2_hashmap_size)


def indexing(grid, resolution: int, size: int) -> np.int32:
    n_vertices = resolution**grid.n_dims
    if grid.type == "Hash" and size < n_vertices:
        return HASHED  # the size is a power of two
    if n_vertices >= 2**32:
        return WIDE
    furthest = sum(resolution**d for d in range(grid.n_dims))  # from first to last corner
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
