"""Edges of a cell along the first dimension, to which the gradient of a table is added.

The two ends of an edge share what it gets, so both come from one number and the place along it. A
single corner, the nearest or a random one, is an edge whose ends are one.
"""

from collections.abc import Callable
from functools import cache, reduce

import numpy as np

from numbanet.device import ONE, ZERO, device, nothing, select
from numbanet.encodings.grid.indexing import table_entry
from numbanet.encodings.grid.level import random_corner


def by_indexing(grid, make: Callable):
    """Device function (level, ...) that calls what `make` returns for the entries of such levels.

    So a loop over many samples of a level does not ask again how its entries are found. `make`
    takes a device function as `grid.entry`.
    """

    def then(before, indexing):
        function = make(table_entry(grid.n_dims, grid.hash, frozenset({indexing}), grid.per_axis))
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
def edge(grid, entry: Callable):
    """Device function (level, cell, factors, e, u): entries and weights of edge e.

    Returns the entries of its ends, its share, and that of the right end in it. The draw u chooses
    a random corner.
    """
    n_dims, is_random = grid.n_dims, grid.stochastic_interpolation
    corner_of = random_corner(n_dims)

    @device
    def one_corner(level, cell, factors, e, u):
        here = entry(level, cell, corner_of(u, factors) if is_random else 0)
        return here, here, ONE, ZERO

    if grid.n_ends == 1:
        return one_corner

    @device
    def edge(level, cell, factors, e, u):
        share, corner = ONE, e << 1
        for d in range(1, n_dims):
            is_right = (corner >> d) & 1 == 1
            share *= select(is_right, factors[2 * d + 1], factors[2 * d])
        return entry(level, cell, corner), entry(level, cell, corner + 1), share, factors[1]

    return edge
