"""Position of a sample in the lattice of a level, and the vertices that share it.

The permutohedral lattice is the image of the integers Z^n under a linear map, and its simplices are
that of Kuhn's triangulation of the unit cube: with u = A x + shift, c = floor(u) and f = u - c, the
vertices are c, then one after another with 1 added to the coordinate with the largest f, the next
one, ... So the coordinate with the k-th largest f has 1 added from vertex k on: k is its *turn*.
The weight of vertex k is the k-th largest f less the next one, where 1 comes before all and 0
behind them. A makes the simplices as regular as those of Adams, Baek and Davis 2010, Fast
High-Dimensional Filtering Using the Permutohedral Lattice, whose vertices and weights these are.

A is lower triangular: u_i = scale ((i + 2) a_i x_i + sum of a_j x_j for j < i), counted from 0,
with a_j = 1 / sqrt((j + 1) (j + 2)).
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.device import ONE, ZERO, device, floor_to_int, select
from numbanet.encodings.grid.indexing import FAR


class Level(NamedTuple):
    """Constants of a level for device code."""

    scale: np.float32
    shifts: tuple[np.float32, ...]  # of u, so that lattices of levels have no vertex in common
    offset: np.uint32  # of the level's table, in entries
    mask: np.uint32  # entries of the level's table, less one: they are a power of two


PRIMES = tuple(  # the first seven are those of grids; then some near 2^32 (sqrt(k) mod 1)
    np.uint32(prime)
    for prime in (
        *(1, 2654435761, 805459861, 3674653429, 2097192037, 1434869437, 2165219737),
        *(1779033713, 3144134291, 3161387893, 1930543759, 2773480771, 2844460903),
        *(1359893131, 2600822927, 3185394221),
    )
)


def factors(n_dims: int) -> tuple[np.float32, ...]:
    """Factor a_j of each dimension."""
    return tuple(np.float32(1 / math.sqrt((j + 1) * (j + 2))) for j in range(n_dims))


@cache
def to_lattice(n_dims: int):
    """Device function (scale, x, u): u = A x."""
    a = factors(n_dims)

    @device
    def to_lattice(scale, x, u):
        before = ZERO
        for d in range(n_dims):
            own = a[d] * x[d]
            u[d] = scale * (np.float32(d + 2) * own + before)
            before += own

    return to_lattice


@cache
def add_from_lattice(n_dims: int):
    """Device function (scale, dl_du, dl_dx): dl_dx += A^T dl_du."""
    a = factors(n_dims)

    @device
    def add_from_lattice(scale, dl_du, dl_dx):
        after = ZERO
        for k in range(n_dims):
            d = n_dims - 1 - k
            dl_dx[d] += scale * a[d] * (np.float32(d + 2) * dl_du[d] + after)
            after += dl_du[d]

    return add_from_lattice


@cache
def locate(n_dims: int):
    """Device function (level, x, cell, rests): the simplex of x, and the f of each coordinate.

    cell [2 n_dims] of uint32 are the coordinates of c, which wrap, and then the turns.
    """
    transform = to_lattice(n_dims)

    @device
    def locate(level, x, cell, rests):  # rests [n_dims]
        transform(level.scale, x, rests)
        for d in range(n_dims):
            u = min(max(rests[d] + level.shifts[d], -FAR), FAR)
            number = floor_to_int(u)
            cell[d] = np.uint32(number)
            rests[d] = u - np.float32(number)
        for d in range(n_dims):
            turn = np.uint32(1)
            for e in range(n_dims):
                is_before = (rests[e] > rests[d]) | ((rests[e] == rests[d]) & (e < d))
                turn += np.uint32(is_before)
            cell[n_dims + d] = turn

    return locate


@cache
def entry(n_dims: int):
    """Device function (level, cell, corner): the entry of a vertex, counted from the level's first.

    As in a hash grid: products with primes, combined by exclusive or.
    """
    primes = PRIMES[:n_dims]

    @device
    def entry(level, cell, corner):
        index = np.uint32(0)
        for d in range(n_dims):
            is_further = np.uint32(cell[n_dims + d] <= np.uint32(corner))
            index ^= (cell[d] + is_further) * primes[d]
        return index & level.mask

    return entry


@cache
def add_differences(n_dims: int):
    """Device function (cell, along, weights): add the weights' change with the f.

    `along` [n_dims] are the changes of the f; adds to weights [n_dims + 1].
    """

    @device
    def add_differences(cell, along, weights):
        for corner in range(n_dims + 1):
            total = weights[corner]
            for d in range(n_dims):
                turn = cell[n_dims + d]
                total += select(turn == np.uint32(corner), along[d], ZERO)
                total -= select(turn == np.uint32(corner + 1), along[d], ZERO)
            weights[corner] = total

    return add_differences


@cache
def slopes(n_dims: int):
    """Device function (cell, dl_dweights, dl_du): add_differences, transposed."""

    @device
    def slopes(cell, dl_dweights, dl_du):
        for d in range(n_dims):
            total, turn = ZERO, cell[n_dims + d]
            for k in range(n_dims):
                difference = dl_dweights[k + 1] - dl_dweights[k]
                total += select(turn == np.uint32(k + 1), difference, ZERO)
            dl_du[d] = total

    return slopes


@cache
def weights(n_dims: int):
    """Device function (cell, rests, weights): the weights of all vertices, which add up to 1."""
    add = add_differences(n_dims)

    @device
    def write_weights(cell, rests, weights):
        weights[0] = ONE
        for corner in range(1, n_dims + 1):
            weights[corner] = ZERO
        add(cell, rests, weights)

    return write_weights


@cache
def weights_along(n_dims: int):
    """Device function (level, cell, u, direction, weights): the weights, differentiated along it.

    u [n_dims] is for what comes in between.
    """
    transform, add = to_lattice(n_dims), add_differences(n_dims)

    @device
    def write_weights_along(level, cell, u, direction, weights):
        transform(level.scale, direction, u)
        for corner in range(n_dims + 1):
            weights[corner] = ZERO
        add(cell, u, weights)

    return write_weights_along
