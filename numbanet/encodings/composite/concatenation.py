"""Concatenation: the features of one encoding, then those of another one."""

from functools import cached_property

from numbanet.device import device, local_array
from numbanet.encodings.composite.pair import AbstractPair
from numbanet.encodings.parts import shifted


class Concatenation(AbstractPair):
    """Features and parameters side by side; padding is that of the last encoding."""

    @property
    def n_outputs(self):
        return self.left.n_outputs + self.right.n_outputs

    @property
    def needs_whole_batch(self):
        return self.left.needs_whole_batch or self.right.needs_whole_batch

    @cached_property
    def partition_columns(self):
        """Partitions of both, without those that have no parameters."""
        shift, columns = self.left.n_outputs, ()
        if self.left.n_params:
            columns += self.left.partition_columns
        if self.right.n_params:
            for start, stop in self.right.partition_columns:
                columns += ((shift + start, shift + stop),)
        return columns or super().partition_columns

    @property
    def parts(self):
        column, param = self.left.n_outputs, self.left.n_params
        right = tuple(
            part._replace(
                first_column=part.first_column + column, first_param=part.first_param + param
            )
            for part in self.right.parts
        )
        return self.left.parts + right

    @property
    def constants(self):
        return self.left.constants + shifted(self.right.constants, self.left.n_outputs)

    def padded(self, n_columns):
        return Concatenation(self.left, self.right.padded(n_columns - self.left.n_outputs))

    @cached_property
    def columns(self):
        n = self.left.n_outputs

        @device
        def columns(row):
            return row[:n], row[n:]

        return columns

    @cached_property
    def forward(self):
        column, split = self.left.n_outputs, self.split
        left, right = self.left.forward, self.right.forward

        @device
        def concatenation(x, params, y):  # y [features of left, features of right]
            left_params, right_params = split(params)
            left(x, left_params, y[:column])
            right(x, right_params, y[column:])

        return concatenation

    @cached_property
    def double_backward_input(self):
        n_dims, column, split = self.n_dims, self.left.n_outputs, self.split
        left, right = self.left.double_backward_input, self.right.double_backward_input

        @device
        def concatenation_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            left_params, right_params = split(params)
            right_dl_dx = local_array(n_dims)
            left(x, left_params, dl_dy[:column], dl_ddx, dl_ddy[:column], dl_dx)
            right(x, right_params, dl_dy[column:], dl_ddx, dl_ddy[column:], right_dl_dx)
            for d in range(n_dims):
                dl_dx[d] += right_dl_dx[d]

        return concatenation_double_backward_input

    @cached_property
    def forward_rows(self):
        right_column, split = self.left.n_outputs, self.split
        left, right = self.left.forward_rows, self.right.forward_rows

        @device
        def concatenation_forward_rows(xs, first, last, params, ys, row, column):
            left_params, right_params = split(params)
            left(xs, first, last, left_params, ys, row, column)
            right(xs, first, last, right_params, ys, row, column + right_column)

        return concatenation_forward_rows

    @property
    def n_left_partitions(self) -> int:
        return len(self.left.partition_columns) if self.left.n_params else 0

    def _of_partitions(self, name: str):
        """Device function (partition, xs, params, *more, to) of the partition's encoding."""
        if self.n_params == 0:
            return None
        split, split_gradients, n_left = self.split, self.split_gradients, self.n_left_partitions
        left, right = self.of_both(name)

        @device
        def concatenation_rows(partition, xs, params, *more):
            left_params, right_params = split(params)
            left_dl_dparams, right_dl_dparams = split_gradients(params, more[-1])
            if partition < n_left:
                left(partition, xs, left_params, *more[:-1], left_dl_dparams)
            else:
                right(partition - n_left, xs, right_params, *more[:-1], right_dl_dparams)

        return concatenation_rows

    @cached_property
    def backward_params_rows(self):
        return self._of_partitions("backward_params_rows")

    @cached_property
    def double_backward_params_rows(self):
        return self._of_partitions("double_backward_params_rows")

    @cached_property
    def partial_backward_params_rows(self):
        return self._of_partitions("partial_backward_params_rows")
