"""Selection of a range of the inputs for an encoding."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.input_range import AbstractInputRange


@dataclass(frozen=True)
class Selection(AbstractInputRange):
    """Features that `encoding` computes from its inputs, which begin at first_dim of n_dims."""

    encoding: AbstractEncoding
    first_dim: int
    n_dims: int

    @property
    def parts(self):
        shift = self.first_dim
        return tuple(
            part._replace(first_dim=part.first_dim + shift) for part in self.encoding.parts
        )

    def padded(self, n_columns):
        return Selection(self.encoding.padded(n_columns), self.first_dim, self.n_dims)

    @cached_property
    def forward(self):
        (first, stop), encoding_forward = self.dims, self.encoding.forward

        @device
        def selection(x, params, y):  # x [n_dims]
            encoding_forward(x[first:stop], params, y)

        return selection

    @cached_property
    def backward_input(self):
        (first, stop), clear = self.dims, self.clear
        encoding_backward = self.encoding.backward_input

        @device
        def selection_backward_input(x, params, dl_dy, dl_dx):
            encoding_backward(x[first:stop], params, dl_dy, dl_dx[first:stop])
            clear(dl_dx)

        return selection_backward_input

    @cached_property
    def backward_params(self):
        (first, stop), encoding_backward = self.dims, self.encoding.backward_params
        if encoding_backward is None:
            return None

        @device
        def selection_backward_params(x, params, dl_dy, dl_dparams):
            encoding_backward(x[first:stop], params, dl_dy, dl_dparams)

        return selection_backward_params

    @cached_property
    def double_backward_input(self):
        (first, stop), clear = self.dims, self.clear
        encoding_backward = self.encoding.double_backward_input

        @device
        def selection_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            selected, dl_ddselected = x[first:stop], dl_ddx[first:stop]
            encoding_backward(selected, params, dl_dy, dl_ddselected, dl_ddy, dl_dx[first:stop])
            clear(dl_dx)

        return selection_double_backward_input

    @cached_property
    def double_backward_params(self):
        (first, stop), encoding_backward = self.dims, self.encoding.double_backward_params
        if encoding_backward is None:
            return None

        @device
        def selection_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            encoding_backward(x[first:stop], params, dl_dy, dl_ddx[first:stop], dl_dparams)

        return selection_double_backward_params

    @cached_property
    def add_partial(self):
        (first, stop), within, reads = self.dims, self.within, self.reads
        encoding_add = self.encoding.add_partial
        if encoding_add is None:
            return None

        @device
        def selection_add_partial(x, params, a, b, y):
            if reads(a, b):
                encoding_add(x[first:stop], params, within(a), within(b), y)

        return selection_add_partial

    @cached_property
    def partial_backward_params(self):
        (first, stop), within, reads = self.dims, self.within, self.reads
        encoding_backward = self.encoding.partial_backward_params
        if encoding_backward is None:
            return None

        @device
        def selection_partial_backward_params(x, params, a, b, dl_dy, dl_dparams):
            if reads(a, b):
                selected = x[first:stop]
                encoding_backward(selected, params, within(a), within(b), dl_dy, dl_dparams)

        return selection_partial_backward_params

    @cached_property
    def partial_backward_params_rows(self):
        (first, stop), within, reads = self.dims, self.within, self.reads
        encoding_rows = self.encoding.partial_backward_params_rows
        if encoding_rows is None:
            return None

        @device
        def selection_partial_backward_params_rows(partition, xs, params, by, dl_dys, dl_dparams):
            a, b = by
            if reads(a, b):
                inner = within(a), within(b)
                encoding_rows(partition, xs[:, first:stop], params, inner, dl_dys, dl_dparams)

        return selection_partial_backward_params_rows

    @cached_property
    def forward_rows(self):
        (first_dim, stop), encoding_rows = self.dims, self.encoding.forward_rows

        @device
        def selection_forward_rows(xs, first, last, params, ys, row, column):
            encoding_rows(xs[:, first_dim:stop], first, last, params, ys, row, column)

        return selection_forward_rows

    @cached_property
    def backward_params_rows(self):
        (first, stop), encoding_rows = self.dims, self.encoding.backward_params_rows
        if encoding_rows is None:
            return None

        @device
        def selection_backward_params_rows(partition, xs, params, dl_dys, dl_dparams):
            encoding_rows(partition, xs[:, first:stop], params, dl_dys, dl_dparams)

        return selection_backward_params_rows

    @cached_property
    def double_backward_params_rows(self):
        (first, stop), encoding_rows = self.dims, self.encoding.double_backward_params_rows
        if encoding_rows is None:
            return None

        @device
        def selection_double_backward_params_rows(
            partition, xs, params, dl_dys, dl_ddxs, dl_dparams
        ):
            selected, dl_ddselected = xs[:, first:stop], dl_ddxs[:, first:stop]
            encoding_rows(partition, selected, params, dl_dys, dl_ddselected, dl_dparams)

        return selection_double_backward_params_rows
