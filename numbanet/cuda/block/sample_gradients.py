"""Gradients of the features of a lane's sample in a training kernel.

They are words, pairs of halves, which become floats late, so that few of these live at a time.
"""

from functools import cache
from typing import Any, NamedTuple

from numbanet.cuda.block.keep import keep_words
from numbanet.cuda.block.samples import for_each_part
from numbanet.cuda.launch.rows import read_row
from numbanet.cuda.memory.workspace import PassOptions
from numbanet.device import (
    ONE,
    ZERO,
    device,
    local_array,
    nothing,
    select,
    unrolled,
)
from numbanet.encodings.base import AbstractEncoding
from numbanet.storage.halves import TO_FLOATS
from numbanet.storage.views import VECTORS, float_vector


@cache
def unpack(precision: str):
    """Device function (k, first, words, factor, features): number k of some from `first` on.

    Times a factor; words are pairs of halves.
    """
    to_floats = TO_FLOATS[precision]

    @device
    def unpack(k, first, words, factor, features):
        low, high = to_floats(words[(first + k) // 2])
        features[k] = factor * select((first + k) % 2 == 0, low, high)

    return unpack


class Sums(NamedTuple):
    """Destination of the gradients of parameters."""

    address: int
    table: Any  # the first ones as int32 in shared memory, ...
    scale: float  # ... times this, unless it is 0


@cache
def encode_backward(encoding: AbstractEncoding, precision: str, storage: str, n_private: int):
    """Device function (x, params, words, factor, sample, to): backward_params, times a factor.

    Words are the gradients of the features, sample is the number of the sample and of all; those of
    the first `n_private` partitions go to the table.
    """
    vector, gradients_vector = VECTORS[precision], VECTORS[storage]
    to_float = unpack(precision)

    def make(part):
        n_dims, width = part.encoding.n_dims, part.encoding.partition_width
        n_partitions, n_params = len(part.encoding.partition_columns), part.encoding.n_params
        first_dim, first_column = part.first_dim, part.first_column
        first_param, backward = part.first_param, part.encoding.partition_backward_params
        has_private = n_private > 0 and first_param == 0
        if backward is None:
            return nothing

        @device
        def backward_partition(partition, x, params, words, factor, sample, to):
            (i, n_all), (dl_dparams, table, scale) = sample, to
            first, mine = first_column + partition * width, local_array(width)
            if has_private and partition < n_private and scale != ZERO:
                unrolled(width, to_float, first, words, factor * scale, mine)
                backward(partition, i, n_all, x, params, mine, table)
            else:
                unrolled(width, to_float, first, words, factor, mine)
                backward(partition, i, n_all, x, params, mine, dl_dparams)

        @device
        def backward_part(x, params, words, factor, sample, to):
            all_params = vector(params, first_param + n_params)
            all_gradients = gradients_vector(to.address, first_param + n_params)
            unrolled(
                n_partitions, backward_partition, x[first_dim : first_dim + n_dims],
                all_params[first_param:], words, factor, sample,
                (all_gradients[first_param:], to.table, to.scale),
            )  # fmt: skip

        return backward_part

    return for_each_part(encoding, make)


class Destination(NamedTuple):
    """Destination of the gradients of the inputs, and factors of these and of the parameters'."""

    dl_dinput: int
    unscaled: float
    factor: float


@cache
def take_back(encoding: AbstractEncoding, precision: str, options: PassOptions, n_private: int):
    """Device function (words, i, sample, n_all, given, to, sums): where a sample's gradients go.

    Words are those of its features; i is its number in the slab, `sample` in the batch. From given
    = (inputs, params) to what the options ask for: to the inputs, to be kept, to parameters.
    """
    n_dims, read = encoding.n_dims, read_row(encoding.n_dims)
    keep = keep_words(*options.kept) if options.kept else nothing
    scatter = to_inputs = nothing
    if options.scatters(encoding):
        scatter = encode_backward(encoding, precision, options.storage, n_private)
    if options.input_gradients:
        to_inputs = encode_backward_input(encoding, precision)

    @device
    def take_back(words, i, sample, n_all, given, to, sums):
        inputs, params = given
        # Reads the inputs by itself, lest all that is computed of them stays in use.
        to_inputs(inputs, params, words, to.unscaled, i, to.dl_dinput)
        keep(words, sample, n_all, sums.address)
        x = local_array(n_dims)
        read(inputs, i * n_dims, x)
        scatter(x, params, words, to.factor, (sample, n_all), sums)

    return take_back


@cache
def encode_backward_input(encoding: AbstractEncoding, precision: str):
    """Device function (inputs, params, words, factor, i, dl_dinput): write row i of dl_dinput.

    It is factor times the gradient of the inputs; words are the gradients of the features. A lane
    has all partitions of its sample, so that their shares are added up in registers.
    """
    n_all_dims, vector, to_float = encoding.n_dims, VECTORS[precision], unpack(precision)
    read = read_row(n_all_dims)

    def make(part):
        n_dims, width = part.encoding.n_dims, part.encoding.partition_width
        n_partitions, n_params = len(part.encoding.partition_columns), part.encoding.n_params
        first_dim, first_column = part.first_dim, part.first_column
        first_param, backward = part.first_param, part.encoding.partition_backward_input

        @device
        def add_share(partition, x, params, words, dl_dx):
            mine, share = local_array(width), local_array(n_dims)
            unrolled(width, to_float, first_column + partition * width, words, ONE, mine)
            backward(partition, x, params, mine, share)
            for d in range(n_dims):
                dl_dx[d] += share[d]

        @device
        def add_shares(x, params, words, dl_dx):
            all_params = vector(params, first_param + n_params)
            unrolled(
                n_partitions, add_share, x[first_dim : first_dim + n_dims],
                all_params[first_param:], words, dl_dx[first_dim : first_dim + n_dims],
            )  # fmt: skip

        return add_shares

    add_all_shares = for_each_part(encoding, make)

    @device
    def encode_backward_input(inputs, params, words, factor, i, dl_dinput):
        first = i * n_all_dims
        x, dl_dx = local_array(n_all_dims), local_array(n_all_dims)
        read(inputs, first, x)
        for d in range(n_all_dims):
            dl_dx[d] = ZERO
        add_all_shares(x, params, words, dl_dx)
        row = float_vector(dl_dinput, n_all_dims)
        for d in range(n_all_dims):
            row[first + d] = factor * dl_dx[d]

    return encode_backward_input
