"""Partial derivatives of a grid's features by its inputs; only the weights of corners change.

`a` and `b` are the inputs, -1 for none: see AbstractEncoding.add_partial.
"""

from functools import cache

from numbanet.device import device, local_array
from numbanet.encodings.grid.level import interpolate, located, scatter


@cache
def level_add_partial(grid):
    """Device function (level, x, params, a, b, y), adding to y."""
    n_features, n_corners = grid.n_features_per_level, grid.n_corners
    interpolate_, write_weights = interpolate(grid), grid.write_weights

    @device
    def add_partial(level, cell, factors, params, a, b, y):  # y [n_features]
        weights, features = local_array(n_corners), local_array(n_features)
        write_weights(level, cell, factors, a, b, weights)
        interpolate_(level, cell, weights, params, features)
        for f in range(n_features):
            y[f] += features[f]

    return located(grid, add_partial)


@cache
def level_partial_backward_params(grid):
    """Device function (level, x, params, a, b, dl_dy, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_, write_weights = grid.n_corners, scatter(grid), grid.write_weights

    @device
    def partial_backward_params(level, cell, factors, params, a, b, dl_dy, dl_dparams):
        weights = local_array(n_corners)
        write_weights(level, cell, factors, a, b, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(grid, partial_backward_params)


@cache
def all_partials(encoding, function):
    """Device function (x, params, a, b, y, ...) from one of a level, (k, x, params, a, b, y, ...).

    There y has the features of all levels. None where a level has no function.
    """
    width, n_levels = encoding.partition_width, len(encoding.partition_columns)
    if function is None:
        return None

    @device
    def all_partials(x, params, a, b, y, *arguments):
        for k in range(n_levels):
            function(k, x, params, a, b, y[k * width : (k + 1) * width], *arguments)

    return all_partials


@cache
def partial_backward_params_rows(grid):
    level_constants, backward = grid.level_constants, grid.level_partial_backward_params

    @device
    def grid_partial_backward_params_rows(partition, xs, params, by, dl_dys, dl_dparams):
        level = level_constants(partition, params)
        a, b = by
        for i in range(len(xs)):
            backward(level, xs[i], params, a, b, dl_dys[i], dl_dparams)

    return grid_partial_backward_params_rows
