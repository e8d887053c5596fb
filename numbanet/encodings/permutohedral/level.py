"""One level of the lattices for one sample: what differs from grid/level.py.

The rests of a simplex stand for the factors of a cell, see lattice.locate. The features are linear
in each simplex, so that their second derivatives are 0 there: what differentiates a gradient once
more has a part for the parameters and for dl_dy, and none for x.
"""

from functools import cache

from numbanet.device import ONE, ZERO, device, local_array, select
from numbanet.encodings.grid.level import interpolate, located, weight_gradients
from numbanet.encodings.permutohedral import lattice


def weights(encoding):
    """Device function (level, cell, rests, a, b, weights), see GridFunctions.write_weights."""
    n_dims = encoding.n_dims
    write_weights, write_along = lattice.weights(n_dims), lattice.weights_along(n_dims)

    @device
    def weights(level, cell, rests, a, b, weights):
        if a < 0:
            write_weights(cell, rests, weights)
            return
        direction = local_array(n_dims)
        for d in range(n_dims):
            direction[d] = select((d == a) & (b < 0), ONE, ZERO)
        write_along(level, cell, rests, direction, weights)

    return weights


@cache
def backward_input(encoding):
    """Device function (level, x, params, dl_dy, dl_dx), adding to dl_dx."""
    n_corners, gradients = encoding.n_corners, weight_gradients(encoding)
    slopes, add = lattice.slopes(encoding.n_dims), lattice.add_from_lattice(encoding.n_dims)

    @device
    def level_backward_input(level, cell, rests, params, dl_dy, dl_dx):
        dl_dweights = local_array(n_corners)
        gradients(level, cell, params, dl_dy, dl_dweights)
        slopes(cell, dl_dweights, rests)
        add(level.scale, rests, dl_dx)

    return located(encoding, level_backward_input)


@cache
def double_backward_input(encoding):
    """Device function (level, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx), adding nothing to dl_dx."""
    n_corners, interpolate_ = encoding.n_corners, interpolate(encoding)
    write_weights_along = encoding.write_weights_along

    @device
    def level_double_backward_input(level, cell, rests, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        weights = local_array(n_corners)
        write_weights_along(level, cell, rests, dl_ddx, weights)
        interpolate_(level, cell, weights, params, dl_ddy)

    return located(encoding, level_double_backward_input)
