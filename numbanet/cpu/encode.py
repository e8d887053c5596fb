"""Features of rows of samples, for a network on the CPU."""

from functools import cache

from numbanet.device import device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import spoil_rows

ONE_FEATURE = ((0, 1),)  # a NaN there spoils all outputs of a network


@cache
def encode(encoding: AbstractEncoding):
    """Device function (xs, first, last, params, ys, row): features of rows of xs to ys[row:]."""
    encode_rows, spoil = encoding.forward_rows, spoil_rows(encoding.n_dims, ONE_FEATURE)

    @device
    def encode(xs, first, last, params, ys, row):
        encode_rows(xs, first, last, params, ys, row, 0)
        spoil(xs, first, last, ys, row)

    return encode
