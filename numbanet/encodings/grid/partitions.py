"""The grid for one sample: one level, chosen at run time, as a CUDA thread does, or all of them.

All threads of a block work on the same level, so that choosing it costs no divergence and the
level's table stays in the caches.
"""

from functools import cache

from numbanet.device import ZERO, device, local_array
from numbanet.encodings.grid.draws import state_of, uniform


@cache
def of_level(grid, function):
    """Device function (k, x, params, ...): a function of level.py for level k."""
    level_constants = grid.level_constants

    @device
    def of_level(k, x, params, *arguments):
        function(level_constants(k, params), x, params, *arguments)

    return of_level


@cache
def backward_params(grid):
    backward = of_level(grid, grid.level_backward_params)

    @device
    def grid_level_backward_params(partition, i, n, x, params, dl_dy, dl_dparams):
        backward(partition, x, params, dl_dy, dl_dparams)

    return grid_level_backward_params


@cache
def stochastic_backward_params(grid):
    """stochastic_backward_params of level.py with a draw for each sample i of n; see draws.py."""
    backward = of_level(grid, grid.level_stochastic_backward_params)

    @device
    def grid_level_stochastic_backward_params(partition, i, n, x, params, dl_dy, dl_dparams):
        u = uniform(state_of(partition, i, n))
        backward(partition, x, params, u, dl_dy, dl_dparams)

    return grid_level_stochastic_backward_params


@cache
def clear(n):
    """Device function (row): set n numbers to zero."""

    @device
    def clear(row):
        for k in range(n):
            row[k] = ZERO

    return clear


@cache
def backward_input(grid):
    clear_dims, add = clear(grid.n_dims), of_level(grid, grid.level_backward_input)

    @device
    def grid_level_backward_input(partition, x, params, dl_dy, dl_dx):
        clear_dims(dl_dx)
        add(partition, x, params, dl_dy, dl_dx)

    return grid_level_backward_input


@cache
def double_backward_input(grid):
    clear_dims, add = clear(grid.n_dims), of_level(grid, grid.level_double_backward_input)

    @device
    def grid_level_double_backward_input(partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        clear_dims(dl_dx)
        add(partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx)

    return grid_level_double_backward_input


@cache
def of_all_levels(grid, function):
    """Device function (x, params, y, ...): as of_level, for each level and its part of y."""
    n_levels, n_features = grid.n_levels, grid.n_features_per_level
    on_level = of_level(grid, function)

    @device
    def of_all_levels(x, params, y, *arguments):
        for k in range(n_levels):
            on_level(k, x, params, y[k * n_features : (k + 1) * n_features], *arguments)

    return of_all_levels


@cache
def all_backward_input(grid):
    n_dims, clear_dims = grid.n_dims, clear(grid.n_dims)
    add = of_all_levels(grid, grid.level_backward_input)

    @device
    def grid_backward_input(x, params, dl_dy, dl_dx):
        total = local_array(n_dims)
        clear_dims(total)
        add(x, params, dl_dy, total)
        for d in range(n_dims):
            dl_dx[d] = total[d]

    return grid_backward_input


@cache
def all_double_backward_input(grid):
    n_dims, clear_dims = grid.n_dims, clear(grid.n_dims)
    n_levels, n_features = grid.n_levels, grid.n_features_per_level
    add = of_level(grid, grid.level_double_backward_input)

    @device
    def grid_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        total = local_array(n_dims)
        clear_dims(total)
        for k in range(n_levels):
            first, last = k * n_features, (k + 1) * n_features
            add(k, x, params, dl_dy[first:last], dl_ddx, dl_ddy[first:last], total)
        for d in range(n_dims):
            dl_dx[d] = total[d]

    return grid_double_backward_input
