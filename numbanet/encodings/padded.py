"""Padding: constant features beside those of an encoding, so that their number fits a network."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.parts import Constant, shifted
from numbanet.encodings.section import AbstractSection


@dataclass(frozen=True)
class Padded(AbstractSection):
    """The features of `encoding` within n_columns; the gradients of the others are dropped."""

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
        """First feature of the encoding, and last one + 1."""
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
    def forward_rows(self):
        (first_column, _), n_columns, (_, fill) = self.columns, self.n_columns, self._outside
        padding = np.float32(self.encoding.padding_value)
        encoding_rows = self.encoding.forward_rows

        @device
        def padded_forward_rows(xs, first, last, params, ys, row, column):
            encoding_rows(xs, first, last, params, ys, row, column + first_column)
            for i in range(row, row + last - first):
                fill(ys[i, column : column + n_columns], padding)

        return padded_forward_rows
