"""A range of the inputs: makes an encoding of few inputs one of all of them."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.section import AbstractSection


@dataclass(frozen=True)
class Selection(AbstractSection):
    """What `encoding` makes of its inputs, which begin at first_dim of n_dims."""

    encoding: AbstractEncoding
    first_dim: int
    n_dims: int

    @property
    def dims(self) -> tuple[int, int]:
        return self.first_dim, self.first_dim + self.encoding.n_dims

    @property
    def parts(self):
        shift = self.first_dim
        return tuple(
            part._replace(first_dim=part.first_dim + shift) for part in self.encoding.parts
        )

    def padded(self, n_columns):
        return Selection(self.encoding.padded(n_columns), self.first_dim, self.n_dims)

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
