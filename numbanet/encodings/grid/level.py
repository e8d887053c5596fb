"""One level of the grid for one sample.

Every function takes the `Level` first, so that a caller may look it up once for many samples. A
sample has a weight for each corner of its cell. The features are the weighted sum of the corners'
entries; whatever is differentiated, only the weights change.
"""

from functools import cache

import numpy as np

from numbanet.device import ONE, ZERO, device, local_array, opaque, uint32_view
from numbanet.encodings.grid.indexing import along
from numbanet.encodings.grid.interpolation import NONE, corner_weight, write_factors
from numbanet.storage.access import load, load_pair, reduce_one, reduce_one_of_odd, reduce_pair


@cache
def locate(grid):
    """Device function (level, x, cell, factors): the cell of x, and the factors of its corners."""
    n_dims = grid.n_dims
    position, write = grid.position, write_factors(grid.interpolation, n_dims)
    along_ = along(grid.per_axis)

    @device
    def locate(level, x, cell, factors):  # x [n_dims], cell [n_dims] of uint32
        for d in range(n_dims):
            cell[d], t = position(level, d, x[d])
            write(t, d, along_(level.scale, d), factors)

    return locate


def located(grid, body):
    """Device function (level, x, params, ...) that calls `body` with the cell of x and its factors.

    They take the place of x.
    """
    n_cell, n_factors, locate_ = grid.n_cell_numbers, grid.n_factors, grid.locate

    @device
    def located(level, x, params, *arguments):
        cell, factors = uint32_view(local_array(n_cell)), local_array(n_factors)
        locate_(level, x, cell, factors)
        body(level, cell, factors, params, *arguments)

    return located


# Features of an entry are accessed in pairs, one 32-bit word of halves, unless an odd number of
# parameters comes before them. Indices are unsigned, so
# that no test for counting from the end is made, and 64 bits wide, for tables of 2^32 numbers and
# so that constants in them become part of the instruction.


@cache
def first_feature(grid):
    """Device function (level, cell, corner): the place of a corner's first feature."""
    entry, width = grid.entry, np.uint64(grid.n_features_per_level)

    @device
    def first_feature(level, cell, corner):
        index = np.uint64(opaque(entry(level, cell, corner)))
        return index * width + np.uint64(level.offset) * width

    return first_feature


@cache
def load_entry(grid):
    """Device function (level, cell, corner, params, features): read the entry of a corner."""
    n_features, n_pairs, first_feature_, values_of = (
        grid.n_features_per_level, grid.n_accessed_pairs, first_feature(grid), grid.values,
    )  # fmt: skip

    @device
    def load_entry(level, cell, corner, params, features):  # features [n_features]
        values, j = values_of(params), first_feature_(level, cell, corner)
        for k in range(n_pairs):
            features[2 * k], features[2 * k + 1] = load_pair(values, j + np.uint64(2 * k))
        if n_pairs == 0:
            for f in range(n_features):
                features[f] = load(values, j + np.uint64(f))

    return load_entry


@cache
def add_to_entry(grid):
    """Device function (level, cell, corner, weight, dl_dy, dl_dparams): add weight dl_dy."""
    n_features, n_pairs, first_feature_ = (
        grid.n_features_per_level, grid.n_accessed_pairs, first_feature(grid),
    )  # fmt: skip
    add_one = reduce_one if grid.begins_even else reduce_one_of_odd

    @device
    def add_to_entry(level, cell, corner, weight, dl_dy, dl_dparams):  # dl_dy [n_features]
        j = first_feature_(level, cell, corner)
        for k in range(n_pairs):
            low, high = weight * dl_dy[2 * k], weight * dl_dy[2 * k + 1]
            reduce_pair(dl_dparams, j + np.uint64(2 * k), low, high)
        if n_pairs == 0:  # seen while it compiles: a table in shared memory takes pairs alone
            for f in range(n_features):
                add_one(dl_dparams, j + np.uint64(f), weight * dl_dy[f])

    return add_to_entry


@cache
def interpolate(grid):
    """Device function (level, cell, weights, params, y): the weighted sum of the entries."""
    n_features, n_corners, load_entry_ = grid.n_features_per_level, grid.n_corners, load_entry(grid)

    @device
    def interpolate(level, cell, weights, params, y):  # weights [n_corners], y [n_features]
        total, features = local_array(n_features), local_array(n_features)
        for f in range(n_features):
            total[f] = ZERO
        for corner in range(n_corners):
            load_entry_(level, cell, corner, params, features)
            for f in range(n_features):
                total[f] += weights[corner] * features[f]
        for f in range(n_features):
            y[f] = total[f]

    return interpolate


@cache
def scatter(grid):
    """Device function (level, cell, weights, dl_dy, dl_dparams): `interpolate`, transposed."""
    n_corners, add = grid.n_corners, add_to_entry(grid)

    @device
    def scatter(level, cell, weights, dl_dy, dl_dparams):  # dl_dy [n_features]
        for corner in range(n_corners):
            add(level, cell, corner, weights[corner], dl_dy, dl_dparams)

    return scatter


@cache
def weight_gradients(grid):
    """Device function (level, cell, params, dl_dy, dl_dweights): entries times dl_dy."""
    n_features, n_corners, load_entry_ = grid.n_features_per_level, grid.n_corners, load_entry(grid)

    @device
    def weight_gradients(level, cell, params, dl_dy, dl_dweights):  # dl_dweights [n_corners]
        features = local_array(n_features)
        for corner in range(n_corners):
            load_entry_(level, cell, corner, params, features)
            total = ZERO
            for f in range(n_features):
                total += dl_dy[f] * features[f]
            dl_dweights[corner] = total

    return weight_gradients


@cache
def forward(grid):
    """Device function (level, x, params, y): write the level's features of x."""
    n_corners, interpolate_, write_weights = grid.n_corners, interpolate(grid), grid.write_weights

    @device
    def level_forward(level, cell, factors, params, y):  # y [n_features]
        weights = local_array(n_corners)
        write_weights(level, cell, factors, NONE, NONE, weights)
        interpolate_(level, cell, weights, params, y)

    return located(grid, level_forward)


@cache
def backward_params(grid):
    """Device function (level, x, params, dl_dy, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_, write_weights = grid.n_corners, scatter(grid), grid.write_weights

    @device
    def level_backward_params(level, cell, factors, params, dl_dy, dl_dparams):
        weights = local_array(n_corners)
        write_weights(level, cell, factors, NONE, NONE, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(grid, level_backward_params)


@cache
def random_corner(n_dims: int):
    """Device function (u, factors) -> corner, for u uniform in [0, 1).

    Every dimension by itself takes a side with its weight as probability.
    """

    @device
    def random_corner(u, factors):
        corner = 0
        for d in range(n_dims):
            if u < factors[2 * d + 1]:
                corner |= 1 << d
        return corner

    return random_corner


@cache
def stochastic_backward_params(grid):
    """Device function (level, x, params, u, dl_dy, dl_dparams): all of dl_dy goes to one corner."""
    corner_of, add = random_corner(grid.n_dims), add_to_entry(grid)

    @device
    def level_stochastic_backward_params(level, cell, factors, params, u, dl_dy, dl_dparams):
        add(level, cell, corner_of(u, factors), ONE, dl_dy, dl_dparams)

    return located(grid, level_stochastic_backward_params)


@cache
def backward_input(grid):
    """Device function (level, x, params, dl_dy, dl_dx), adding to dl_dx."""
    n_dims, n_corners = grid.n_dims, grid.n_corners
    gradients, weight_of = weight_gradients(grid), corner_weight(n_dims)

    @device
    def level_backward_input(level, cell, factors, params, dl_dy, dl_dx):  # dl_dy [n_features]
        dl_dweights = local_array(n_corners)
        gradients(level, cell, params, dl_dy, dl_dweights)
        for d in range(n_dims):
            total = ZERO
            for corner in range(n_corners):
                total += dl_dweights[corner] * weight_of(factors, corner, d, NONE)
            dl_dx[d] += total

    return located(grid, level_backward_input)


@cache
def double_backward_input(grid):
    """Device function (level, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx), adding to dl_dx."""
    n_dims, n_corners = grid.n_dims, grid.n_corners
    gradients, interpolate_ = weight_gradients(grid), interpolate(grid)
    weight_of, write_weights_along = corner_weight(n_dims), grid.write_weights_along

    @device
    def level_double_backward_input(level, cell, factors, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        weights, dl_dweights = local_array(n_corners), local_array(n_corners)
        write_weights_along(level, cell, factors, dl_ddx, weights)
        interpolate_(level, cell, weights, params, dl_ddy)
        gradients(level, cell, params, dl_dy, dl_dweights)
        for d in range(n_dims):
            total = ZERO
            for e in range(n_dims):
                for corner in range(n_corners):
                    weight = dl_ddx[e] * weight_of(factors, corner, d, e)
                    total += dl_dweights[corner] * weight
            dl_dx[d] += total

    return located(grid, level_double_backward_input)


@cache
def double_backward_params(grid):
    """Device function (level, x, params, dl_dy, dl_ddx, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_ = grid.n_corners, scatter(grid)
    write_weights_along = grid.write_weights_along

    @device
    def level_double_backward_params(level, cell, factors, params, dl_dy, dl_ddx, dl_dparams):
        weights = local_array(n_corners)
        write_weights_along(level, cell, factors, dl_ddx, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(grid, level_double_backward_params)
