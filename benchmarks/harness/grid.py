"""The 2-D hash grid of the sample config: its levels, and which entries a position reads."""

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.samples import HASH

GRID = HASH["encoding"]
N_FEATURES = GRID["n_features_per_level"]
HASH_PRIME = 2654435761


@dataclass(frozen=True)
class Level:
    """Level of the grid: its place in the table, and how corners find their entry."""

    scale: float  # cells per unit length
    resolution: int  # vertices per axis
    n_entries: int
    offset: int  # first entry in the table
    hashed: bool


def grid_levels():
    """Return the levels of the grid, coarse to fine."""
    log2_scale = np.log2(np.float32(GRID["per_level_scale"]))
    levels, offset = [], 0
    for i in range(GRID["n_levels"]):
        growth = np.float32(2.0 ** float(np.float32(i) * log2_scale))
        scale = growth * np.float32(GRID["base_resolution"]) - np.float32(1)
        resolution = math.ceil(scale) + 1
        n_dense = (resolution**2 + 7) // 8 * 8
        n_entries = min(n_dense, 2 ** GRID["log2_hashmap_size"])
        hashed = n_entries < resolution**2
        levels.append(Level(float(scale), resolution, n_entries, offset, hashed))
        offset += n_entries
    return levels


LEVELS = grid_levels()
N_ENTRIES = sum(level.n_entries for level in LEVELS)


def corners(positions):
    """Yield (level number, entry of each sample, weight of each sample) for all 64 corners."""
    for number, level in enumerate(LEVELS):
        # rounded once to float32, as a fused multiply-add: the finest level has only 11 bits left
        at = (positions.astype(np.float64) * level.scale + 0.5).astype(np.float32)
        at = at.astype(np.float64)
        cell = np.floor(at)
        fraction = at - cell
        for corner in (0, 0), (1, 0), (0, 1), (1, 1):
            x, y = (cell + corner).astype(np.uint64).T
            if level.hashed:
                index = (x ^ (y * np.uint64(HASH_PRIME))) & np.uint64(0xFFFFFFFF)
            else:
                index = x + y * np.uint64(level.resolution)
            entry = (index % np.uint64(level.n_entries)).astype(np.int64) + level.offset
            yield number, entry, np.prod(np.where(corner, fraction, 1 - fraction), axis=1)
