"""One level of the lattices for one sample, as grid/level.py for a grid.

The features are linear in each simplex, so that their second derivatives are 0 there: what
differentiates a gradient once more has a part for the parameters and for dl_dy, and none for x.
"""

from functools import cache

from numbanet.device import ONE, ZERO, device, local_array, select, uint32_view
from numbanet.encodings.grid.level import interpolate, scatter, weight_gradients
from numbanet.encodings.permutohedral import lattice


def located(encoding, body):
    """Device function (level, x, params, ...) that calls `body` with the simplex of x.

    The cell and the rests, see lattice.locate, take the place of x.
    """
    n_dims, locate_ = encoding.n_dims, lattice.locate(encoding.n_dims)
    n_numbers = 2 * n_dims

    @device
    def located(level, x, params, *arguments):
        cell, rests = uint32_view(local_array(n_numbers)), local_array(n_dims)
        locate_(level, x, cell, rests)
        body(level, cell, rests, params, *arguments)

    return located


@cache
def forward(encoding):
    """Device function (level, x, params, y): write the level's features of x."""
    n_corners, interpolate_ = encoding.n_corners, interpolate(encoding)
    write_weights = lattice.weights(encoding.n_dims)

    @device
    def level_forward(level, cell, rests, params, y):  # y [n_features]
        weights = local_array(n_corners)
        write_weights(cell, rests, weights)
        interpolate_(level, cell, weights, params, y)

    return located(encoding, level_forward)


@cache
def backward_params(encoding):
    """Device function (level, x, params, dl_dy, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_ = encoding.n_corners, scatter(encoding)
    write_weights = lattice.weights(encoding.n_dims)

    @device
    def level_backward_params(level, cell, rests, params, dl_dy, dl_dparams):
        weights = local_array(n_corners)
        write_weights(cell, rests, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(encoding, level_backward_params)


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
    write_weights_along = lattice.weights_along(encoding.n_dims)

    @device
    def level_double_backward_input(level, cell, rests, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
        weights = local_array(n_corners)
        write_weights_along(level, cell, dl_ddx, rests, weights)
        interpolate_(level, cell, weights, params, dl_ddy)

    return located(encoding, level_double_backward_input)


@cache
def double_backward_params(encoding):
    """Device function (level, x, params, dl_dy, dl_ddx, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_ = encoding.n_corners, scatter(encoding)
    write_weights_along = lattice.weights_along(encoding.n_dims)

    @device
    def level_double_backward_params(level, cell, rests, params, dl_dy, dl_ddx, dl_dparams):
        weights = local_array(n_corners)
        write_weights_along(level, cell, dl_ddx, rests, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(encoding, level_double_backward_params)


@cache
def partial_weights(encoding):
    """Device function (level, cell, rests, a, b, weights): their derivative by inputs a and b.

    -1 is no input, see AbstractEncoding.add_partial.
    """
    n_dims = encoding.n_dims
    write_weights, write_along = lattice.weights(n_dims), lattice.weights_along(n_dims)

    @device
    def partial_weights(level, cell, rests, a, b, weights):
        if a < 0:
            write_weights(cell, rests, weights)
            return
        direction = local_array(n_dims)
        for d in range(n_dims):
            direction[d] = select((d == a) & (b < 0), ONE, ZERO)
        write_along(level, cell, direction, rests, weights)

    return partial_weights


@cache
def add_partial(encoding):
    """Device function (level, x, params, a, b, y), adding to y."""
    n_features, n_corners = encoding.n_features_per_level, encoding.n_corners
    interpolate_, write_weights = interpolate(encoding), partial_weights(encoding)

    @device
    def add_partial(level, cell, rests, params, a, b, y):  # y [n_features]
        weights, features = local_array(n_corners), local_array(n_features)
        write_weights(level, cell, rests, a, b, weights)
        interpolate_(level, cell, weights, params, features)
        for f in range(n_features):
            y[f] += features[f]

    return located(encoding, add_partial)


@cache
def partial_backward_params(encoding):
    """Device function (level, x, params, a, b, dl_dy, dl_dparams), adding to dl_dparams."""
    n_corners, scatter_ = encoding.n_corners, scatter(encoding)
    write_weights = partial_weights(encoding)

    @device
    def partial_backward_params(level, cell, rests, params, a, b, dl_dy, dl_dparams):
        weights = local_array(n_corners)
        write_weights(level, cell, rests, a, b, weights)
        scatter_(level, cell, weights, dl_dy, dl_dparams)

    return located(encoding, partial_backward_params)
