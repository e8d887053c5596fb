"""The edges of a cell along the first dimension: the pieces in which a table's gradient is added.

The two ends of an edge share what it gets, so both come from one number and the place along it.
"""

from collections.abc import Callable
from functools import cache, reduce

import numpy as np

from numbanet.device import ONE, device, nothing, select
from numbanet.encodings.grid.indexing import table_entry


def by_indexing(grid, make: Callable):
    """Device function (level, ...) that calls what `make` returns for the entries of such levels.

    So a loop over many samples of a level does not ask again how its entries are found. `make`
    takes a device function as `grid.entry`.
    """

    def then(before, indexing):
        function = make(table_entry(grid.n_dims, grid.hash, frozenset({indexing})))
        number = np.int32(indexing)

        @device
        def choose(level, *arguments):
            if level.indexing == number:
                function(level, *arguments)
            else:
                before(level, *arguments)

        return choose

    return reduce(then, sorted(grid.indexings), nothing)


@cache
def edge(n_dims: int, entry: Callable):
    """Device function (level, cell, factors, e): the entries of edge e's ends, and its share."""

    @device
    def edge(level, cell, factors, e):
        share, corner = ONE, e << 1
        for d in range(1, n_dims):
            is_right = (corner >> d) & 1 == 1
            share *= select(is_right, factors[2 * d + 1], factors[2 * d])
        return entry(level, cell, corner), entry(level, cell, corner + 1), share

    return edge
