"""Product: the features of two encodings of equal width, multiplied.

For p = a b: dp = b da + a db, and d2p = b d2a + a d2b + 2 da db. So a derivative by two inputs
is a sum over the ways to divide them among the factors.
"""

from functools import cached_property

from numbanet.device import ZERO, device, local_array
from numbanet.encodings.composite.pair import AbstractPair

NONE, BOTH = -1, 3  # no input; the first and the second


@device
def n_terms(a, b):  # ways to divide the inputs of a derivative among the factors
    return 1 if a < 0 else (2 if b < 0 else 4)


@device
def taken(a, b, which):  # those of which the bits are set
    first, second = (a if which & 1 else b), NONE
    if which == 0:
        first = NONE
    if which == BOTH:
        second = b
    return first, second


class Product(AbstractPair):
    """Product of two encodings' features; padding is the product of theirs.

    Of more than two factors, each pair evaluates the product on its left again.
    """

    @property
    def n_outputs(self):
        return self.left.n_outputs

    def padded(self, n_columns):
        return Product(self.left.padded(n_columns), self.right.padded(n_columns))

    @cached_property
    def forward(self):
        n_outputs, split = self.n_outputs, self.split
        left, right = self.left.forward, self.right.forward

        @device
        def product(x, params, y):
            left_params, right_params = split(params)
            factor = local_array(n_outputs)
            left(x, left_params, y)
            right(x, right_params, factor)
            for k in range(n_outputs):
                y[k] *= factor[k]

        return product

    @cached_property
    def _factor_gradients(self):
        """Device function (x, params, dl_dy, dl_dleft, dl_dright): dl_dy times the other factor."""
        n_outputs, split = self.n_outputs, self.split
        left, right = self.left.forward, self.right.forward

        @device
        def factor_gradients(x, params, dl_dy, dl_dleft, dl_dright):
            left_params, right_params = split(params)
            left(x, left_params, dl_dright)
            right(x, right_params, dl_dleft)
            for k in range(n_outputs):
                dl_dleft[k] *= dl_dy[k]
                dl_dright[k] *= dl_dy[k]

        return factor_gradients

    @cached_property
    def _slope_gradients(self):
        """Device function (x, params, dl_dy, dl_ddx, dl_dleft, dl_dright).

        They are dl_dy times the slope of the other factor in direction dl_ddx.
        """
        n_dims, n_outputs, split = self.n_dims, self.n_outputs, self.split
        left, right = self.left.double_backward_input, self.right.double_backward_input

        @device
        def slope_gradients(x, params, dl_dy, dl_ddx, dl_dleft, dl_dright):
            left_params, right_params = split(params)
            unused = local_array(n_dims)
            left(x, left_params, dl_dy, dl_ddx, dl_dright, unused)
            right(x, right_params, dl_dy, dl_ddx, dl_dleft, unused)
            for k in range(n_outputs):
                dl_dleft[k] *= dl_dy[k]
                dl_dright[k] *= dl_dy[k]

        return slope_gradients

    @cached_property
    def backward_input(self):
        n_dims, n_outputs, split = self.n_dims, self.n_outputs, self.split
        left, right = self.left.backward_input, self.right.backward_input
        factor_gradients = self._factor_gradients

        @device
        def product_backward_input(x, params, dl_dy, dl_dx):
            left_params, right_params = split(params)
            dl_dleft, dl_dright = local_array(n_outputs), local_array(n_outputs)
            right_dl_dx = local_array(n_dims)
            factor_gradients(x, params, dl_dy, dl_dleft, dl_dright)
            left(x, left_params, dl_dleft, dl_dx)
            right(x, right_params, dl_dright, right_dl_dx)
            for d in range(n_dims):
                dl_dx[d] += right_dl_dx[d]

        return product_backward_input

    @cached_property
    def backward_params(self):
        if self.n_params == 0:
            return None
        n_outputs, split, split_gradients = self.n_outputs, self.split, self.split_gradients
        left, right = self.of_both("backward_params")
        factor_gradients = self._factor_gradients

        @device
        def product_backward_params(x, params, dl_dy, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            dl_dleft, dl_dright = local_array(n_outputs), local_array(n_outputs)
            factor_gradients(x, params, dl_dy, dl_dleft, dl_dright)
            left(x, left_params, dl_dleft, left_dl_dparams)
            right(x, right_params, dl_dright, right_dl_dparams)

        return product_backward_params

    @cached_property
    def double_backward_input(self):
        n_dims, n_outputs, split = self.n_dims, self.n_outputs, self.split
        left_forward, right_forward = self.left.forward, self.right.forward
        left_backward, right_backward = self.left.backward_input, self.right.backward_input
        left_double = self.left.double_backward_input
        right_double = self.right.double_backward_input

        @device
        def product_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            left_params, right_params = split(params)
            a, b = local_array(n_outputs), local_array(n_outputs)
            da, db = local_array(n_outputs), local_array(n_outputs)
            dl_da, dl_db = local_array(n_outputs), local_array(n_outputs)
            term = local_array(n_dims)
            left_forward(x, left_params, a)
            right_forward(x, right_params, b)
            for k in range(n_outputs):
                dl_da[k] = dl_dy[k] * b[k]
                dl_db[k] = dl_dy[k] * a[k]
            left_double(x, left_params, dl_da, dl_ddx, da, dl_dx)
            right_double(x, right_params, dl_db, dl_ddx, db, term)
            for d in range(n_dims):
                dl_dx[d] += term[d]
            for k in range(n_outputs):
                dl_ddy[k] = da[k] * b[k] + a[k] * db[k]
                dl_da[k] = dl_dy[k] * db[k]
                dl_db[k] = dl_dy[k] * da[k]
            left_backward(x, left_params, dl_da, term)
            for d in range(n_dims):
                dl_dx[d] += term[d]
            right_backward(x, right_params, dl_db, term)
            for d in range(n_dims):
                dl_dx[d] += term[d]

        return product_double_backward_input

    @cached_property
    def double_backward_params(self):
        if self.n_params == 0:
            return None
        n_outputs, split, split_gradients = self.n_outputs, self.split, self.split_gradients
        left_backward, right_backward = self.of_both("backward_params")
        left_double, right_double = self.of_both("double_backward_params")
        factor_gradients, slope_gradients = self._factor_gradients, self._slope_gradients

        @device
        def product_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            dl_dleft, dl_dright = local_array(n_outputs), local_array(n_outputs)
            factor_gradients(x, params, dl_dy, dl_dleft, dl_dright)
            left_double(x, left_params, dl_dleft, dl_ddx, left_dl_dparams)
            right_double(x, right_params, dl_dright, dl_ddx, right_dl_dparams)
            slope_gradients(x, params, dl_dy, dl_ddx, dl_dleft, dl_dright)
            left_backward(x, left_params, dl_dleft, left_dl_dparams)
            right_backward(x, right_params, dl_dright, right_dl_dparams)

        return product_double_backward_params

    @cached_property
    def _factors(self):
        """Device function (x, params, left_by, right_by, left_y, right_y): both derivatives."""
        n_outputs, split = self.n_outputs, self.split
        left, right = self.left.add_partial, self.right.add_partial

        @device
        def factors(x, params, left_by, right_by, left_y, right_y):
            left_params, right_params = split(params)
            for k in range(n_outputs):
                left_y[k] = ZERO
                right_y[k] = ZERO
            left(x, left_params, left_by[0], left_by[1], left_y)
            right(x, right_params, right_by[0], right_by[1], right_y)

        return factors

    @cached_property
    def add_partial(self):
        n_outputs, factors = self.n_outputs, self._factors
        if self.left.add_partial is None or self.right.add_partial is None:
            return None

        @device
        def product_add_partial(x, params, a, b, y):
            left_y, right_y = local_array(n_outputs), local_array(n_outputs)
            for term in range(n_terms(a, b)):
                left_by, right_by = taken(a, b, term), taken(a, b, BOTH - term)
                factors(x, params, left_by, right_by, left_y, right_y)
                for k in range(n_outputs):
                    y[k] += left_y[k] * right_y[k]

        return product_add_partial

    @cached_property
    def partial_backward_params(self):
        if self.n_params == 0:
            return None
        n_outputs, factors, split = self.n_outputs, self._factors, self.split
        split_gradients = self.split_gradients
        left, right = self.of_both("partial_backward_params")

        @device
        def product_partial_backward_params(x, params, a, b, dl_dy, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            dl_dleft, dl_dright = local_array(n_outputs), local_array(n_outputs)
            for term in range(n_terms(a, b)):
                left_by, right_by = taken(a, b, term), taken(a, b, BOTH - term)
                factors(x, params, left_by, right_by, dl_dright, dl_dleft)
                for k in range(n_outputs):
                    dl_dright[k] *= dl_dy[k]
                    dl_dleft[k] *= dl_dy[k]
                left(x, left_params, left_by[0], left_by[1], dl_dleft, left_dl_dparams)
                right(x, right_params, right_by[0], right_by[1], dl_dright, right_dl_dparams)

        return product_partial_backward_params
