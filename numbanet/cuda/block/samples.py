"""What a lane of a fused kernel does for its sample: features in, gradients of features out.

A sample's features are a row of halves in shared memory, and so are their gradients.
"""

from functools import cache, reduce

import numpy as np

from numbanet.cuda.launch.rows import read_row
from numbanet.device import (
    ONE,
    ZERO,
    device,
    local_array,
    nothing,
    select,
    uint32_view,
    unrolled,
)
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import nan_bits, zero_or_nan
from numbanet.storage.halves import TO_FLOATS, TO_PAIR
from numbanet.storage.views import VECTORS, float_vector
from numbanet.tiles.copies import PIECE_HALVES
from numbanet.tiles.instructions import load_words, store_words, warp_barrier


@cache
def store_pairs(n: int):
    """Device function (address, words): write a row of n halves, two in a word."""
    n_pieces = n // PIECE_HALVES

    @device
    def store_piece(k, address, words):
        i = 4 * k
        piece = words[i], words[i + 1], words[i + 2], words[i + 3]
        store_words(address + 16 * k, piece)

    @device
    def store_pairs(address, words):
        unrolled(n_pieces, store_piece, address, words)

    return store_pairs


@cache
def load_pairs(n: int):
    """Device function (address, words): read a row of n halves, two in a word."""
    n_pieces = n // PIECE_HALVES

    @device
    def load_piece(k, address, words):
        piece, i = load_words(address + 16 * k), 4 * k
        words[i], words[i + 1], words[i + 2], words[i + 3] = piece

    @device
    def load_pairs(address, words):
        unrolled(n_pieces, load_piece, address, words)

    return load_pairs


def for_each_part(encoding: AbstractEncoding, make):
    """Device function that calls what `make` returns for each part, with the same arguments."""

    def then(before, part):
        step = make(part)

        @device
        def after(*arguments):
            before(*arguments)
            step(*arguments)

        return after

    return reduce(then, encoding.parts, nothing)


@cache
def encode(encoding: AbstractEncoding, precision: str):
    """Device function (x, params, address): write the features of a sample to shared memory."""
    n_words, to_words = encoding.n_outputs // 2, encode_in_words(encoding, precision)
    store_row = store_pairs(encoding.n_outputs)

    @device
    def encode(x, params, address):
        words = uint32_view(local_array(n_words))
        to_words(x, params, words)
        store_row(address, words)

    return encode


@cache
def encode_in_words(encoding: AbstractEncoding, precision: str):
    """Device function (x, params, words): the features of a sample, two in a word.

    x are its inputs, params is the address of the encoding's parameters; all lanes of a warp call
    it. Where an input is not finite, the first word is NaN, which is enough for a network. Features
    are kept as pairs of halves as soon as both are there, so that few registers are in use; those
    with odd places are kept as floats.
    """
    n, vector, constants = encoding.n_outputs, VECTORS[precision], encoding.constants
    n_words, to_pair = n // 2, TO_PAIR[precision]
    in_pairs = all(
        part.first_column % 2 == 0 and part.encoding.partition_width % 2 == 0
        for part in encoding.parts
    )
    n_floats, n_constants = 1 if in_pairs else n, len(constants)
    columns = tuple((first, stop) for first, stop, _ in constants) or ((0, 0),)
    values = tuple(np.float32(value) for *_, value in constants) or (ZERO,)
    check = zero_or_nan(encoding.n_dims)

    @device
    def pack(k, first, y, words):
        words[first + k] = to_pair(y[2 * k], y[2 * k + 1])

    def make(part):
        n_dims, width = part.encoding.n_dims, part.encoding.partition_width
        n_partitions, n_params = len(part.encoding.partition_columns), part.encoding.n_params
        first_dim, first_column = part.first_dim, part.first_column
        first_param, partition_forward = part.first_param, part.encoding.partition_forward
        n_pairs = width // 2
        has_pairs = in_pairs and precision in part.encoding.partition_forward_pairs
        forward_pairs = part.encoding.partition_forward_pairs.get(precision, nothing)

        @device
        def encode_partition(partition, x, params, y, words):
            first = first_column + partition * width
            if has_pairs:
                forward_pairs(partition, x, params, words[first // 2 : first // 2 + n_pairs])
            elif in_pairs:
                mine = local_array(width)
                partition_forward(partition, x, params, mine)
                unrolled(n_pairs, pack, first // 2, mine, words)
                warp_barrier()  # lest the assembler mixes partitions, whose floats spill then
            else:
                partition_forward(partition, x, params, y[first : first + width])

        @device
        def encode_part(x, params, y, words):
            all_params = vector(params, first_param + n_params)
            mine = x[first_dim : first_dim + n_dims]
            unrolled(n_partitions, encode_partition, mine, all_params[first_param:], y, words)

        return encode_part

    encode_parts = for_each_part(encoding, make)

    @device
    def fill(k, y, words):
        value = values[k]
        for column in range(columns[k][0], columns[k][1]):
            if in_pairs:
                words[column // 2] = to_pair(value, value)
            else:
                y[column] = value

    @device
    def encode_in_words(x, params, words):
        y = local_array(n_floats)
        encode_parts(x, params, y, words)
        unrolled(n_constants, fill, y, words)
        if not in_pairs:
            unrolled(n_words, pack, 0, y, words)
        words[0] = words[0] | nan_bits(check(x))

    return encode_in_words


@cache
def unpack(precision: str):
    """Device function (k, first, words, factor, features): number k of some from `first` on.

    Times a factor; words are pairs of halves. Called late, few floats live at the same time.
    """
    to_floats = TO_FLOATS[precision]

    @device
    def unpack(k, first, words, factor, features):
        low, high = to_floats(words[(first + k) // 2])
        features[k] = factor * select((first + k) % 2 == 0, low, high)

    return unpack


@cache
def encode_backward(encoding: AbstractEncoding, precision: str, storage: str, n_private: int):
    """Device function (x, params, words, factor, i, n_all, dl_dparams, table, scale).

    Adds factor times the gradient of the parameters; words are the gradients of the features of
    sample i of n_all. Those of the first `n_private` partitions, times a scale, go to a table of
    int32 in shared memory, unless the scale is 0.
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

            @device
            def no_gradient(x, params, words, factor, i, n_all, dl_dparams, table, scale):
                return

            return no_gradient

        @device
        def backward_partition(
            partition, x, params, words, factor, i, n_all, dl_dparams, table, scale
        ):
            first, mine = first_column + partition * width, local_array(width)
            if has_private and partition < n_private and scale != ZERO:
                unrolled(width, to_float, first, words, factor * scale, mine)
                backward(partition, i, n_all, x, params, mine, table)
            else:
                unrolled(width, to_float, first, words, factor, mine)
                backward(partition, i, n_all, x, params, mine, dl_dparams)

        @device
        def backward_part(x, params, words, factor, i, n_all, dl_dparams, table, scale):
            all_params = vector(params, first_param + n_params)
            all_gradients = gradients_vector(dl_dparams, first_param + n_params)
            unrolled(
                n_partitions, backward_partition, x[first_dim : first_dim + n_dims],
                all_params[first_param:], words, factor, i, n_all, all_gradients[first_param:],
                table, scale,
            )  # fmt: skip

        return backward_part

    return for_each_part(encoding, make)


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
