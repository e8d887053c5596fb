"""Table entries of the vertices of a grid's level."""

from functools import cache
from typing import Any

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.device import device, local_array, uint32_view
from numbanet.encodings.grid.indexing import along, table_entry
from numbanet.encodings.grid.numbers import numbered_level, words


@cache
def entries_kernel(n_dims: int, hash_name: str, indexing: int, per_axis: bool) -> ParallelKernel:
    """(words, entries): the entry of each vertex of a lattice, the last dimension fastest."""
    entry, along_ = table_entry(n_dims, hash_name, frozenset({indexing}), per_axis), along(per_axis)
    level_of = numbered_level(n_dims if per_axis else 0)

    @device
    def entry_of_vertex(words, i):
        level = level_of(0, (words, words))
        cell, rest = uint32_view(local_array(n_dims)), np.int64(i)
        for k in range(n_dims):
            d = n_dims - 1 - k
            resolution = np.int64(along_(level.resolution, d))
            cell[d] = np.uint32(rest % resolution)
            rest //= resolution
        return entry(level, cell, 0)

    def entries_of_vertices(words, entries):
        for i in prange(entries.shape[0]):
            entries[i] = entry_of_vertex(words, i)

    return ParallelKernel(entries_of_vertices)


def entries_of_vertices(grid: Any, k: int) -> np.ndarray:
    """Table entry of every vertex of level k, [resolution, ...], one axis for each input."""
    level, entries = grid.levels[k], np.empty(grid.vertices(k), np.int64)
    kernel = entries_kernel(grid.n_dims, grid.hash, int(level.indexing), grid.per_axis)
    kernel(np.array(words(level, grid.limit), np.uint32), entries.reshape(-1))
    return entries
