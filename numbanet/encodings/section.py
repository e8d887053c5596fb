"""An encoding whose inputs or features are a section of those around it."""

from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device, nothing
from numbanet.encodings.wrapper import AbstractWrapper


@device
def same(row):
    return row


def outside(first: int, stop: int, n: int):
    """Device function (row, value): write a value to what is not in the section, of n numbers."""
    if (first, stop) == (0, n):
        return nothing

    @device
    def outside(row, value):
        for k in range(first):
            row[k] = value
        for k in range(stop, n):
            row[k] = value

    return outside


def within(first: int, stop: int, n: int):
    """Device function (row) -> the section of n numbers."""
    if (first, stop) == (0, n):
        return same

    @device
    def within(row):
        return row[first:stop]

    return within


class AbstractSection(AbstractWrapper):
    """What `encoding` makes of its inputs, among n_dims, as its features, among n_outputs.

    Features that are not its own have padding_value; gradients of inputs that nothing reads are 0.
    """

    @property
    def dims(self) -> tuple[int, int]:
        """First input of the encoding, and last one + 1."""
        return 0, self.n_dims

    @property
    def columns(self) -> tuple[int, int]:
        """First feature of the encoding, and last one + 1."""
        return 0, self.n_outputs

    @cached_property
    def _sections(self):
        """Device functions: the section of a row of inputs, and that of a row of features."""
        return within(*self.dims, self.n_dims), within(*self.columns, self.n_outputs)

    @cached_property
    def _outside(self):
        """The same for what is not in it."""
        return outside(*self.dims, self.n_dims), outside(*self.columns, self.n_outputs)

    @cached_property
    def forward(self):
        (dims, columns), (_, fill) = self._sections, self._outside
        encoding_forward, padding = self.encoding.forward, np.float32(self.encoding.padding_value)

        @device
        def section(x, params, y):  # x [n_dims], y [n_outputs]
            encoding_forward(dims(x), params, columns(y))
            fill(y, padding)

        return section

    @cached_property
    def backward_input(self):
        (dims, columns), (clear, _) = self._sections, self._outside
        encoding_backward = self.encoding.backward_input

        @device
        def section_backward_input(x, params, dl_dy, dl_dx):
            encoding_backward(dims(x), params, columns(dl_dy), dims(dl_dx))
            clear(dl_dx, ZERO)

        return section_backward_input

    @cached_property
    def backward_params(self):
        (dims, columns), encoding_backward = self._sections, self.encoding.backward_params
        if encoding_backward is None:
            return None

        @device
        def section_backward_params(x, params, dl_dy, dl_dparams):
            encoding_backward(dims(x), params, columns(dl_dy), dl_dparams)

        return section_backward_params

    @cached_property
    def double_backward_input(self):
        (dims, columns), (clear, fill) = self._sections, self._outside
        encoding_backward = self.encoding.double_backward_input

        @device
        def section_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            mine, given = columns(dl_dy), columns(dl_ddy)
            encoding_backward(dims(x), params, mine, dims(dl_ddx), given, dims(dl_dx))
            clear(dl_dx, ZERO)
            fill(dl_ddy, ZERO)

        return section_double_backward_input

    @cached_property
    def double_backward_params(self):
        (dims, columns), encoding_backward = self._sections, self.encoding.double_backward_params
        if encoding_backward is None:
            return None

        @device
        def section_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            encoding_backward(dims(x), params, columns(dl_dy), dims(dl_ddx), dl_dparams)

        return section_double_backward_params
