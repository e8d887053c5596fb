"""Grid of which each sample reads the levels up to one of its own, which is one more input.

Level l of n, counted from 0, gives zeros, and gets no gradient, where l >= max_level n + 1/1000;
max_level is the last input, from 0 (the coarsest level alone) to 1 (all of them). So features
appear from coarse to fine while training goes on: Li et al. 2023, Neuralangelo, section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device, local_array
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.leveled_partials import LeveledPartials
from numbanet.encodings.padded import Padded
from numbanet.encodings.parts import Part

SLACK = np.float32(1e-3)  # of a level, for rounding


@dataclass(frozen=True)
class Leveled(LeveledPartials):
    """Features of a grid that reads inputs from first_dim on; the last input is the level."""

    encoding: AbstractEncoding
    first_dim: int
    n_dims: int

    padding_value = 0.0

    @property
    def parts(self):
        return (Part(self),)

    def padded(self, n_columns):
        return self if n_columns == self.n_outputs else Padded(self, n_columns)

    @property
    def partition_additions(self):
        return self.encoding.partition_additions

    @cached_property
    def shows(self):
        """Device function (k, x): whether a sample reads level k."""
        last, n_levels = self.n_dims - 1, np.float32(len(self.partition_columns))

        @device
        def shows(k, x):
            return np.float32(k) < x[last] * n_levels + SLACK

        return shows

    @cached_property
    def hide(self):
        """Device function (x, y): zeros for the features that a sample does not read."""
        width, n_outputs, shows = self.partition_width, self.n_outputs, self.shows

        @device
        def hide(x, y):
            for f in range(n_outputs):
                if not shows(f // width, x):
                    y[f] = ZERO

        return hide

    @cached_property
    def hidden(self):
        """Device function (x, dl_dy, copy): the gradient without that of hidden features."""
        n_outputs, hide = self.n_outputs, self.hide

        @device
        def hidden(x, dl_dy, copy):
            for f in range(n_outputs):
                copy[f] = dl_dy[f]
            hide(x, copy)

        return hidden

    @cached_property
    def forward(self):
        (first, stop), hide, forward = self.dims, self.hide, self.encoding.forward

        @device
        def leveled(x, params, y):
            forward(x[first:stop], params, y)
            hide(x, y)

        return leveled

    @cached_property
    def backward_input(self):
        (first, stop), hidden, clear = self.dims, self.hidden, self.clear
        backward, n_outputs = self.encoding.backward_input, self.n_outputs

        @device
        def leveled_backward_input(x, params, dl_dy, dl_dx):
            read = local_array(n_outputs)
            hidden(x, dl_dy, read)
            backward(x[first:stop], params, read, dl_dx[first:stop])
            clear(dl_dx)

        return leveled_backward_input

    @cached_property
    def backward_params(self):
        (first, stop), hidden, n_outputs = self.dims, self.hidden, self.n_outputs
        backward = self.encoding.backward_params

        @device
        def leveled_backward_params(x, params, dl_dy, dl_dparams):
            read = local_array(n_outputs)
            hidden(x, dl_dy, read)
            backward(x[first:stop], params, read, dl_dparams)

        return leveled_backward_params

    @cached_property
    def double_backward_input(self):
        (first, stop), hidden, hide, clear = self.dims, self.hidden, self.hide, self.clear
        backward, n_outputs = self.encoding.double_backward_input, self.n_outputs

        @device
        def leveled_double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            read = local_array(n_outputs)
            hidden(x, dl_dy, read)
            along, to = dl_ddx[first:stop], dl_dx[first:stop]
            backward(x[first:stop], params, read, along, dl_ddy, to)
            hide(x, dl_ddy)
            clear(dl_dx)

        return leveled_double_backward_input

    @cached_property
    def double_backward_params(self):
        (first, stop), hidden, n_outputs = self.dims, self.hidden, self.n_outputs
        backward = self.encoding.double_backward_params

        @device
        def leveled_double_backward_params(x, params, dl_dy, dl_ddx, dl_dparams):
            read = local_array(n_outputs)
            hidden(x, dl_dy, read)
            backward(x[first:stop], params, read, dl_ddx[first:stop], dl_dparams)

        return leveled_double_backward_params

    @cached_property
    def partition_forward(self):
        (first, stop), shows, width = self.dims, self.shows, self.partition_width
        forward = self.encoding.partition_forward

        @device
        def leveled_partition(k, x, params, y):
            forward(k, x[first:stop], params, y)
            if not shows(k, x):
                for f in range(width):
                    y[f] = ZERO

        return leveled_partition

    @cached_property
    def partition_backward_params(self):
        (first, stop), shows = self.dims, self.shows
        backward = self.encoding.partition_backward_params

        @device
        def leveled_partition_backward_params(k, i, n, x, params, dl_dy, dl_dparams):
            if shows(k, x):
                backward(k, i, n, x[first:stop], params, dl_dy, dl_dparams)

        return leveled_partition_backward_params

    @cached_property
    def partition_backward_input(self):
        (first, stop), shows, clear = self.dims, self.shows, self.clear
        backward = self.encoding.partition_backward_input

        @device
        def leveled_partition_backward_input(k, x, params, dl_dy, dl_dx):
            backward(k, x[first:stop], params, dl_dy, dl_dx[first:stop])
            clear(dl_dx)
            if not shows(k, x):
                for d in range(first, stop):
                    dl_dx[d] = ZERO

        return leveled_partition_backward_input

    @cached_property
    def partition_double_backward_input(self):
        (first, stop), shows, clear = self.dims, self.shows, self.clear
        backward, width = self.encoding.partition_double_backward_input, self.partition_width

        @device
        def leveled_partition_double_backward_input(k, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            along, to = dl_ddx[first:stop], dl_dx[first:stop]
            backward(k, x[first:stop], params, dl_dy, along, dl_ddy, to)
            clear(dl_dx)
            if not shows(k, x):
                for d in range(first, stop):
                    dl_dx[d] = ZERO
                for f in range(width):
                    dl_ddy[f] = ZERO

        return leveled_partition_double_backward_input

    @cached_property
    def partition_double_backward_params(self):
        (first, stop), shows = self.dims, self.shows
        backward = self.encoding.partition_double_backward_params

        @device
        def leveled_partition_double_backward_params(k, x, params, dl_dy, dl_ddx, dl_dparams):
            if shows(k, x):
                backward(k, x[first:stop], params, dl_dy, dl_ddx[first:stop], dl_dparams)

        return leveled_partition_double_backward_params

    @cached_property
    def forward_rows(self):
        (first, stop), hide, n_outputs = self.dims, self.hide, self.n_outputs
        forward_rows = self.encoding.forward_rows

        @device
        def leveled_forward_rows(xs, begin, end, params, ys, row, column):
            forward_rows(xs[:, first:stop], begin, end, params, ys, row, column)
            for i in range(end - begin):
                hide(xs[begin + i], ys[row + i, column : column + n_outputs])

        return leveled_forward_rows

    @cached_property
    def shown_rows(self):
        """Device function (k, xs, dl_dys): the gradients of level k, 0 where it is hidden."""
        shows, width = self.shows, self.partition_width

        @device
        def shown_rows(k, xs, dl_dys):
            read = np.empty((xs.shape[0], width), np.float32)
            for i in range(xs.shape[0]):
                for f in range(width):
                    read[i, f] = dl_dys[i, f] if shows(k, xs[i]) else ZERO
            return read

        return shown_rows

    @cached_property
    def backward_params_rows(self):
        (first, stop), shown_rows = self.dims, self.shown_rows
        backward = self.encoding.backward_params_rows

        @device
        def leveled_backward_params_rows(k, xs, params, dl_dys, dl_dparams):
            backward(k, xs[:, first:stop], params, shown_rows(k, xs, dl_dys), dl_dparams)

        return leveled_backward_params_rows

    @cached_property
    def double_backward_params_rows(self):
        (first, stop), shown_rows = self.dims, self.shown_rows
        backward = self.encoding.double_backward_params_rows

        @device
        def leveled_double_backward_params_rows(k, xs, params, dl_dys, dl_ddxs, dl_dparams):
            read, along = shown_rows(k, xs, dl_dys), dl_ddxs[:, first:stop]
            backward(k, xs[:, first:stop], params, read, along, dl_dparams)

        return leveled_double_backward_params_rows
