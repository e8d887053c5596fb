"""Padding: constant features beside those of an encoding, to the width of a network."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.parts import Constant, shifted
from numbanet.encodings.wrapper import AbstractWrapper


@dataclass(frozen=True)
class Padded(AbstractWrapper):
    """Features of `encoding` within n_columns; the gradients of the others are dropped."""

    encoding: AbstractEncoding
    n_columns: int

    @property
    def n_dims(self):
        return self.encoding.n_dims

    @property
    def n_outputs(self):
        return self.n_columns

    @property
    def columns(self) -> tuple[int, int]:
        """Range of the encoding's features: the first, and the last + 1."""
        n_features = self.encoding.n_outputs
        first = self.n_columns - n_features if self.encoding.padding_first else 0
        return first, first + n_features

    @cached_property
    def partition_columns(self):
        shift = self.columns[0]
        return tuple(
            (shift + start, shift + stop) for start, stop in self.encoding.partition_columns
        )

    @property
    def parts(self):
        shift = self.columns[0]
        return tuple(
            part._replace(first_column=part.first_column + shift) for part in self.encoding.parts
        )

    @property
    def constants(self):
        (first, stop), value = self.columns, self.encoding.padding_value
        ranges = (0, first), (stop, self.n_columns)
        own = tuple(Constant(*each, value) for each in ranges if each[0] < each[1])
        return own + shifted(self.encoding.constants, first)

    def padded(self, n_columns):
        return self.encoding.padded(n_columns)

    @cached_property
    def _fill(self):
        """Device function (row, value): write the value to all columns of the padding."""
        (first, stop), n_columns = self.columns, self.n_columns

        @device
        def fill(row, value):
            for k in range(first):
                row[k] = value
            for k in range(stop, n_columns):
                row[k] = value

        return fill

    @cached_property
    def forward(self):
        (first, stop), padding = self.columns, np.float32(self.encoding.padding_value)
        encoding_forward, fill = self.encoding.forward, self._fill

        @device
        def padded(x, params, y):  # y [n_columns]
            encoding_forward(x, params, y[first:stop])
            fill(y, padding)

        return padded

    @cached_property
    def backward_input(self):
        (first, stop), encoding_backward = self.columns, self.encoding.backward_input

        @device
        def padded_backward_input(x, params, dl_dy, dl_dx):
            encoding_backward(x, params, dl_dy[first:stop], dl_dx)

        return padded_backward_input

    @cached_property
    def backward_params(self):
        (first, stop), encoding_backward = self.columns, self.encoding.backward_params
        if encoding_backward is None:
            return None

        @device
        def padded_backward_params(x, params, dl_dy, dl_dparams):
            encoding_backward(x, params, dl_dy[first:stop], dl_dparams)

        return padded_backward_params

    @cached_property
    def double_backward_input(self):
        (first, stop), fill = self.columns, self._fill
        encoding_backward = self.encoding.double_backward_input

        @device
        def padded_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            encoding_backward(x, params, dl_dy[first:stop], dl_ddx, dl_ddy[first:stop], dl_dx)
            fill(dl_ddy, ZERO)

        return padded_double_backward_input

    @cached_property
    def double_backward_params(self):
        (first, stop), encoding_backward = self.columns, self.encoding.double_backward_params
        if encoding_backward is None:
            return None

        @device
        def padded_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            encoding_backward(x, params, dl_dy[first:stop], dl_ddx, dl_dparams)

        return padded_double_backward_params

    @cached_property
    def add_partial(self):
        (first, stop), n_columns = self.columns, self.n_columns
        padding, encoding_add = np.float32(self.encoding.padding_value), self.encoding.add_partial
        if encoding_add is None:
            return None

        @device
        def padded_add_partial(x, params, a, b, y):
            encoding_add(x, params, a, b, y[first:stop])
            if a < 0:
                for k in range(first):
                    y[k] += padding
                for k in range(stop, n_columns):
                    y[k] += padding

        return padded_add_partial

    @cached_property
    def partial_backward_params(self):
        (first, stop), encoding_backward = self.columns, self.encoding.partial_backward_params
        if encoding_backward is None:
            return None

        @device
        def padded_partial_backward_params(x, params, a, b, dl_dy, dl_dparams):
            encoding_backward(x, params, a, b, dl_dy[first:stop], dl_dparams)

        return padded_partial_backward_params

    @cached_property
    def forward_rows(self):
        (first_column, _), n_columns = self.columns, self.n_columns
        padding, fill = np.float32(self.encoding.padding_value), self._fill
        encoding_rows = self.encoding.forward_rows

        @device
        def padded_forward_rows(xs, first, last, params, ys, row, column):
            encoding_rows(xs, first, last, params, ys, row, column + first_column)
            for i in range(row, row + last - first):
                fill(ys[i, column : column + n_columns], padding)

        return padded_forward_rows
