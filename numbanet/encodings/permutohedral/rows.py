"""One level of the lattices for many samples: its table then stays in the cache."""

from functools import cache

import numpy as np

from numbanet.device import device


@cache
def forward_rows(encoding):
    n_levels, n_features = encoding.n_levels, encoding.n_features_per_level
    level_constants, forward = encoding.level_constants, encoding.level_forward

    @device
    def permutohedral_rows(xs, first, last, params, ys, row, column):
        for k in range(n_levels):
            level, start = level_constants(k, params), column + k * n_features
            for i in range(np.uintp(last - first)):
                y = ys[np.uintp(row) + i, start : start + n_features]
                forward(level, xs[np.uintp(first) + i], params, y)

    return permutohedral_rows


@cache
def backward_params_rows(encoding):
    level_constants, backward = encoding.level_constants, encoding.level_backward_params

    @device
    def permutohedral_backward_params_rows(partition, xs, params, dl_dys, dl_dparams):
        level = level_constants(partition, params)
        for i in range(len(xs)):
            backward(level, xs[i], params, dl_dys[i], dl_dparams)

    return permutohedral_backward_params_rows
