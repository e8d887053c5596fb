"""Interpolation weights of the corners of a cell.

Each dimension gives its right corner the weight s(t) and its left one 1 - s(t), where t in [0, 1)
is the place inside the cell; the weight of a corner is the product over the dimensions. Smoothstep
makes the encoding continuously differentiable.

`factors` holds these numbers for a point, then their first and second derivatives: a pair (left,
right) for each order and dimension. Bit d of a corner chooses from the pairs of dimension d.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.device import ONE, TWO, ZERO, device

NONE = -1  # no dimension
THREE = np.float32(3.0)
SIX = np.float32(6.0)
TWELVE = np.float32(12.0)


class Interpolation(NamedTuple):
    """Device functions of t: the weight s of the right corner and its two derivatives."""

    weight: Callable
    slope: Callable
    curvature: Callable


@device
def zero(t):
    return ZERO


@device
def one(t):
    return ONE


@device
def identity(t):
    return t


@device
def smoothstep(t):
    return t * t * (THREE - TWO * t)


@device
def smoothstep_slope(t):
    return SIX * t * (ONE - t)


@device
def smoothstep_curvature(t):
    return SIX - TWELVE * t


INTERPOLATIONS = {
    "Nearest": Interpolation(zero, zero, zero),  # corner 0 has all the weight
    "Linear": Interpolation(identity, one, zero),
    "Smoothstep": Interpolation(smoothstep, smoothstep_slope, smoothstep_curvature),
}


@cache
def write_factors(name: str, n_dims: int):
    """Device function (t, d, scale, factors): the factors of dimension d; dt/dx = scale."""
    weight, slope, curvature = INTERPOLATIONS[name]

    @device
    def write_factors(t, d, scale, factors):  # factors [6 n_dims]
        k = 2 * d
        right = weight(t)
        factors[k], factors[k + 1] = ONE - right, right
        k += 2 * n_dims
        right = scale * slope(t)
        factors[k], factors[k + 1] = -right, right
        k += 2 * n_dims
        right = scale * scale * curvature(t)
        factors[k], factors[k + 1] = -right, right

    return write_factors


@cache
def corner_weight(n_dims: int):
    """Device function (factors, corner, a, b): a corner's weight, or a derivative of it.

    It is differentiated by dimension a and by dimension b, where they are not NONE.
    """

    @device
    def corner_weight(factors, corner, a, b):
        weight = ONE
        for d in range(n_dims):
            order = (d == a) + (d == b)
            weight *= factors[2 * (order * n_dims + d) + ((corner >> d) & 1)]
        return weight

    return corner_weight


def weights(grid):
    """Device function (level, cell, factors, a, b, weights): corner_weight of all corners."""
    n_corners, weight_of = grid.n_corners, corner_weight(grid.n_dims)

    @device
    def write_weights(level, cell, factors, a, b, weights):  # weights [n_corners]
        for corner in range(n_corners):
            weights[corner] = weight_of(factors, corner, a, b)

    return write_weights


def weights_along(grid):
    """Device function (level, cell, factors, direction, weights): differentiated along it."""
    n_dims, n_corners, weight_of = grid.n_dims, grid.n_corners, corner_weight(grid.n_dims)

    @device
    def write_weights_along(level, cell, factors, direction, weights):  # direction [n_dims]
        for corner in range(n_corners):
            weights[corner] = ZERO
        for d in range(n_dims):
            for corner in range(n_corners):
                weights[corner] += direction[d] * weight_of(factors, corner, d, NONE)

    return write_weights_along
