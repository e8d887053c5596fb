"""Sum: the features of two encodings of equal width, added up."""

from functools import cached_property

from numbanet.device import device, local_array
from numbanet.encodings.composite.pair import AbstractPair


class Sum(AbstractPair):
    """Sum of two encodings' features, which both get the whole gradient; padding adds up."""

    @property
    def n_outputs(self):
        return self.left.n_outputs

    def padded(self, n_columns):
        return Sum(self.left.padded(n_columns), self.right.padded(n_columns))

    @cached_property
    def forward(self):
        n_outputs, split = self.n_outputs, self.split
        left, right = self.left.forward, self.right.forward

        @device
        def total(x, params, y):
            left_params, right_params = split(params)
            term = local_array(n_outputs)
            left(x, left_params, y)
            right(x, right_params, term)
            for k in range(n_outputs):
                y[k] += term[k]

        return total

    @cached_property
    def double_backward_input(self):
        n_dims, n_outputs, split = self.n_dims, self.n_outputs, self.split
        left, right = self.left.double_backward_input, self.right.double_backward_input

        @device
        def total_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            left_params, right_params = split(params)
            right_dl_ddy, right_dl_dx = local_array(n_outputs), local_array(n_dims)
            left(x, left_params, dl_dy, dl_ddx, dl_ddy, dl_dx)
            right(x, right_params, dl_dy, dl_ddx, right_dl_ddy, right_dl_dx)
            for k in range(n_outputs):
                dl_ddy[k] += right_dl_ddy[k]
            for d in range(n_dims):
                dl_dx[d] += right_dl_dx[d]

        return total_double_backward_input
