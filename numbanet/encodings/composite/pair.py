"""Two encodings of the same inputs, combined into one; longer lists are pairs of pairs."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import device, local_array, nothing
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.parts import with_numbers


@device
def both(row):
    return row, row


@dataclass(frozen=True)
class AbstractPair(AbstractEncoding):
    """Pair of encodings: the parameters of `left` come first; gradients of the inputs add up."""

    left: AbstractEncoding
    right: AbstractEncoding

    @property
    def n_dims(self):
        return self.left.n_dims

    @property
    def n_params(self):
        return self.left.n_params + self.right.n_params

    @property
    def required_output_alignment(self):
        return math.lcm(self.left.required_output_alignment, self.right.required_output_alignment)

    def placed(self, first_param):
        right = self.right.placed(first_param + self.left.n_params)
        return type(self)(self.left.placed(first_param), right)

    @property
    def reads_numbers(self):
        return self.left.reads_numbers or self.right.reads_numbers

    @property
    def numbers(self):
        """Parameters and numbers that `left` has, then its numbers and those of `right`."""
        left, right = self.left.numbers, self.right.numbers
        return (self.left.n_params, len(left), *left, *right) if left or right else ()

    def kernel_key(self):
        return type(self)(self.left.kernel_key(), self.right.kernel_key())

    @cached_property
    def split(self):
        """Device function (params): those of left and those of right."""
        if self.reads_numbers:
            return self._split_with_numbers
        n = self.left.n_params

        @device
        def split(params):
            return params[:n], params[n:]

        return split

    @property
    def _split_with_numbers(self):
        left, right = with_numbers(self.left.reads_numbers), with_numbers(self.right.reads_numbers)

        @device
        def split_with_numbers(params):
            values, numbers = params
            n, last = numbers[0], 2 + numbers[1]
            return left(values[:n], numbers[2:last]), right(values[n:], numbers[last:])

        return split_with_numbers

    @cached_property
    def split_gradients(self):
        """Device function (params, dl_dparams): those of left and those of right."""
        n, reads_numbers = self.left.n_params, self.reads_numbers

        @device
        def split_gradients(params, dl_dparams):
            return dl_dparams[:n], dl_dparams[n:]

        @device
        def split_gradients_with_numbers(params, dl_dparams):
            n = params[1][0]
            return dl_dparams[:n], dl_dparams[n:]

        return split_gradients_with_numbers if reads_numbers else split_gradients

    @cached_property
    def columns(self):
        """Device function (row): the features of left, and of right, among those of both."""
        return both

    # Where both features and their gradients are in these columns: Product is another matter.

    @cached_property
    def backward_input(self):
        n_dims, split, columns = self.n_dims, self.split, self.columns
        left, right = self.left.backward_input, self.right.backward_input

        @device
        def pair_backward_input(x, params, dl_dy, dl_dx):
            left_params, right_params = split(params)
            of_left, of_right = columns(dl_dy)
            right_dl_dx = local_array(n_dims)
            left(x, left_params, of_left, dl_dx)
            right(x, right_params, of_right, right_dl_dx)
            for d in range(n_dims):
                dl_dx[d] += right_dl_dx[d]

        return pair_backward_input

    @cached_property
    def backward_params(self):
        if self.n_params == 0:
            return None
        split, split_gradients, columns = self.split, self.split_gradients, self.columns
        left, right = self.of_both("backward_params")

        @device
        def pair_backward_params(x, params, dl_dy, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            of_left, of_right = columns(dl_dy)
            left(x, left_params, of_left, left_dl_dparams)
            right(x, right_params, of_right, right_dl_dparams)

        return pair_backward_params

    @cached_property
    def double_backward_params(self):
        if self.n_params == 0:
            return None
        split, split_gradients, columns = self.split, self.split_gradients, self.columns
        left, right = self.of_both("double_backward_params")

        @device
        def pair_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            of_left, of_right = columns(dl_dy)
            left(x, left_params, of_left, dl_ddx, left_dl_dparams)
            right(x, right_params, of_right, dl_ddx, right_dl_dparams)

        return pair_double_backward_params

    @property
    def n_derivatives(self):
        return min(self.left.n_derivatives, self.right.n_derivatives)

    @cached_property
    def add_partial(self):
        left, right = self.left.add_partial, self.right.add_partial
        split, columns = self.split, self.columns
        if left is None or right is None:
            return None

        @device
        def pair_add_partial(x, params, a, b, y):
            left_params, right_params = split(params)
            of_left, of_right = columns(y)
            left(x, left_params, a, b, of_left)
            right(x, right_params, a, b, of_right)

        return pair_add_partial

    @cached_property
    def partial_backward_params(self):
        if self.n_params == 0:
            return None
        split, split_gradients, columns = self.split, self.split_gradients, self.columns
        left, right = self.of_both("partial_backward_params")

        @device
        def pair_partial_backward_params(x, params, a, b, dl_dy, dl_dparams):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, dl_dparams)
            of_left, of_right = columns(dl_dy)
            left(x, left_params, a, b, of_left, left_dl_dparams)
            right(x, right_params, a, b, of_right, right_dl_dparams)

        return pair_partial_backward_params

    def initial_params(self, rng):
        return np.concatenate([self.left.initial_params(rng), self.right.initial_params(rng)])

    def of_both(self, name: str) -> tuple:
        """Functions of that name; encodings without parameters may have none."""
        return tuple(getattr(encoding, name) or nothing for encoding in (self.left, self.right))
