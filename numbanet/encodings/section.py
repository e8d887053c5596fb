"""An encoding whose inputs or features are a section of those around it."""

from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device, nothing
from numbanet.encodings.wrapper import AbstractWrapper


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
    def _outside(self):
        """Device functions (row, value) for inputs and features that are not its own."""
        return outside(*self.dims, self.n_dims), outside(*self.columns, self.n_outputs)

    @cached_property
    def forward(self):
        (i, j), (first, stop), (_, fill) = self.dims, self.columns, self._outside
        encoding_forward, padding = self.encoding.forward, np.float32(self.encoding.padding_value)

        @device
        def section(x, params, y):  # x [n_dims], y [n_outputs]
            encoding_forward(x[i:j], params, y[first:stop])
            fill(y, padding)

        return section

    @cached_property
    def backward_input(self):
        (i, j), (first, stop), (clear, _) = self.dims, self.columns, self._outside
        encoding_backward = self.encoding.backward_input

        @device
        def section_backward_input(x, params, dl_dy, dl_dx):
            encoding_backward(x[i:j], params, dl_dy[first:stop], dl_dx[i:j])
            clear(dl_dx, ZERO)

        return section_backward_input

    @cached_property
    def backward_params(self):
        (i, j), (first, stop) = self.dims, self.columns
        encoding_backward = self.encoding.backward_params
        if encoding_backward is None:
            return None

        @device
        def section_backward_params(x, params, dl_dy, dl_dparams):
            encoding_backward(x[i:j], params, dl_dy[first:stop], dl_dparams)

        return section_backward_params

    @cached_property
    def double_backward_input(self):
        (i, j), (first, stop), (clear, fill) = self.dims, self.columns, self._outside
        encoding_backward = self.encoding.double_backward_input

        @device
        def section_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            mine, along, given = dl_dy[first:stop], dl_ddx[i:j], dl_ddy[first:stop]
            encoding_backward(x[i:j], params, mine, along, given, dl_dx[i:j])
            clear(dl_dx, ZERO)
            fill(dl_ddy, ZERO)

        return section_double_backward_input

    @cached_property
    def double_backward_params(self):
        (i, j), (first, stop) = self.dims, self.columns
        encoding_backward = self.encoding.double_backward_params
        if encoding_backward is None:
            return None

        @device
        def section_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            encoding_backward(x[i:j], params, dl_dy[first:stop], dl_ddx[i:j], dl_dparams)

        return section_double_backward_params
