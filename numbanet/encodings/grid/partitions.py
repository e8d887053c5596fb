"""One level of the grid for one sample, chosen at run time: what a CUDA thread does.

All threads of a block work on the same level, so that choosing it costs no divergence and the
level's table stays in the caches.
"""

from functools import cache

import numpy as np

from numbanet.device import ZERO, device
from numbanet.encodings.grid import level
from numbanet.random import Pcg32, pcg32_advance, pcg32_float, pcg32_output


@cache
def forward(grid):
    level_constants, level_forward = grid.level_constants, grid.level_forward

    @device
    def grid_level(partition, x, params, y):  # y [n_features]
        level_forward(level_constants(partition, params), x, params, y)

    return grid_level


@cache
def forward_pairs(grid, precision):
    level_constants, level_forward = grid.level_constants, level.forward_pairs(grid, precision)

    @device
    def grid_level_pairs(partition, x, params, words):  # words [n_features / 2]
        level_forward(level_constants(partition, params), x, params, words)

    return grid_level_pairs


@cache
def backward_params(grid):
    level_constants, level_backward = grid.level_constants, grid.level_backward_params

    @device
    def grid_level_backward_params(partition, i, n, x, params, dl_dy, dl_dparams):
        level_backward(level_constants(partition, params), x, dl_dy, dl_dparams)

    return grid_level_backward_params


@cache
def stochastic_backward_params(grid):
    """With draw number `level * n + i` for sample i of n."""
    level_constants, level_backward = grid.level_constants, grid.level_stochastic_backward_params
    seeded = np.uint64(Pcg32(1337).state)

    @device
    def grid_level_stochastic_backward_params(partition, i, n, x, params, dl_dy, dl_dparams):
        number = np.uint64(np.uint64(partition) * np.uint64(n) + np.uint64(i))
        u = pcg32_float(pcg32_output(pcg32_advance(seeded, number)))
        level_backward(level_constants(partition, params), x, u, dl_dy, dl_dparams)

    return grid_level_stochastic_backward_params


@cache
def backward_input(grid):
    n_dims, level_constants = grid.n_dims, grid.level_constants
    level_backward = grid.level_backward_input

    @device
    def grid_level_backward_input(partition, x, params, dl_dy, dl_dx):
        for d in range(n_dims):
            dl_dx[d] = ZERO
        level_backward(level_constants(partition, params), x, params, dl_dy, dl_dx)

    return grid_level_backward_input


@cache
def double_backward_input(grid):
    n_dims, level_constants = grid.n_dims, grid.level_constants
    level_backward = grid.level_double_backward_input

    @device
    def grid_level_double_backward_input(partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        for d in range(n_dims):
            dl_dx[d] = ZERO
        level_backward(level_constants(partition, params), x, params, dl_dy, dl_ddx, dl_ddy, dl_dx)

    return grid_level_double_backward_input


@cache
def double_backward_params(grid):
    level_constants, level_backward = grid.level_constants, grid.level_double_backward_params

    @device
    def grid_level_double_backward_params(partition, x, params, dl_dy, dl_ddx, dl_dparams):
        level_backward(level_constants(partition, params), x, dl_dy, dl_ddx, dl_dparams)

    return grid_level_double_backward_params
