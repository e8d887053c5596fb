"""The edges of a cell along the first dimension: the pieces in which a table's gradient is added.

The two ends of an edge share what it gets, so both come from one number and the place along it.
"""

from functools import cache

from numbanet.device import ONE, device, select


@cache
def edge(grid):
    """Device function (level, cell, factors, e): the entries of edge e's ends, and its share."""
    n_dims, entry = grid.n_dims, grid.entry

    @device
    def edge(level, cell, factors, e):
        share, corner = ONE, e << 1
        for d in range(1, n_dims):
            is_right = (corner >> d) & 1 == 1
            share *= select(is_right, factors[2 * d + 1], factors[2 * d])
        return entry(level, cell, corner), entry(level, cell, corner + 1), share

    return edge
