"""Table entries of the vertices of a grid's level."""

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.device import local_array, uint32_view
from numbanet.encodings.grid.indexing import table_entry


@cache
def entries_kernel(n_dims: int, hash_name: str, indexing: int) -> ParallelKernel:
    """(level, entries): the entry of each vertex of a lattice, the last dimension fastest."""
    entry = table_entry(n_dims, hash_name, frozenset({indexing}))

    def entries_of_vertices(level, entries):
        resolution = np.int64(level.resolution)
        for i in prange(entries.shape[0]):
            cell, rest = uint32_view(local_array(n_dims)), np.int64(i)
            for k in range(n_dims):
                d = n_dims - 1 - k
                cell[d] = np.uint32(rest % resolution)
                rest //= resolution
            entries[i] = entry(level, cell, 0)

    return ParallelKernel(entries_of_vertices)


def entries_of_vertices(grid: Any, k: int) -> np.ndarray:
    """Table entry of every vertex of level k, [resolution, ...], one axis for each input."""
    level = grid.levels[k]
    shape = (int(level.resolution),) * grid.n_dims
    entries = np.empty(shape, np.int64)
    entries_kernel(grid.n_dims, grid.hash, int(level.indexing))(level, entries.reshape(-1))
    return entries
