"""What a lane of a fused kernel does for its sample: features in, gradients of features out.

A sample's features are a row of halves in shared memory. They come from the encoding itself, or
from the encoding's own kernels through global memory; their gradients go the same way back.
"""

from functools import cache, reduce

import numpy as np

from numbanet.cuda.encoding_kernels import partition_width
from numbanet.device import ZERO, device, local_array, unrolled
from numbanet.encodings.base import AbstractEncoding
from numbanet.storage.access import load, store
from numbanet.storage.views import VECTORS
from numbanet.tiles.fragments import TO_FLOATS, TO_PAIR
from numbanet.tiles.instructions import load_words, store_words

PIECE = 8  # halves of a 16-byte access


@cache
def store_features(n: int, precision: str):
    """Device function (address, features): write a row of n floats as halves."""
    to_pair, n_pieces = TO_PAIR[precision], n // PIECE

    @device
    def store_piece(k, address, y):
        i = PIECE * k
        words = (
            to_pair(y[i], y[i + 1]),
            to_pair(y[i + 2], y[i + 3]),
            to_pair(y[i + 4], y[i + 5]),
            to_pair(y[i + 6], y[i + 7]),
        )
        store_words(np.uint32(address + np.uint32(16 * k)), words)

    @device
    def store_features(address, y):
        unrolled(n_pieces, store_piece, address, y)

    return store_features


@cache
def load_features(n: int, precision: str):
    """Device function (address, features): the inverse of store_features."""
    to_floats, n_pieces = TO_FLOATS[precision], n // PIECE

    @device
    def load_piece(k, address, y):
        words, i = load_words(np.uint32(address + np.uint32(16 * k))), PIECE * k
        y[i], y[i + 1] = to_floats(words[0])
        y[i + 2], y[i + 3] = to_floats(words[1])
        y[i + 4], y[i + 5] = to_floats(words[2])
        y[i + 6], y[i + 7] = to_floats(words[3])

    @device
    def load_features(address, y):
        unrolled(n_pieces, load_piece, address, y)

    return load_features


def for_each_part(encoding: AbstractEncoding, make):
    """Device function that calls what `make` returns for each part, with the same arguments."""

    def then(before, part):
        step = make(part)

        @device
        def after(*arguments):
            before(*arguments)
            step(*arguments)

        return after

    @device
    def nothing(*arguments):
        return

    return reduce(then, encoding.parts, nothing)


@cache
def encode(encoding: AbstractEncoding, precision: str):
    """Device function (x, params, address): write the features of a sample; x are its inputs.

    params is the address of the encoding's parameters.
    """
    n, vector, constants = encoding.n_outputs, VECTORS[precision], encoding.constants
    n_constants, store_row = len(constants), store_features(n, precision)
    columns = tuple((first, stop) for first, stop, _ in constants) or ((0, 0),)
    values = tuple(np.float32(value) for *_, value in constants) or (ZERO,)

    def make(part):
        n_dims, width = part.encoding.n_dims, partition_width(part.encoding)
        n_partitions, n_params = len(part.encoding.partition_columns), part.encoding.n_params
        first_dim, first_column = part.first_dim, part.first_column
        first_param, partition_forward = part.first_param, part.encoding.partition_forward

        @device
        def encode_partition(partition, x, params, y):
            first = first_column + partition * width
            partition_forward(partition, x, params, y[first : first + width])

        @device
        def encode_part(x, params, y):
            all_params = vector(params, first_param + n_params)
            mine = x[first_dim : first_dim + n_dims]
            unrolled(n_partitions, encode_partition, mine, all_params[first_param:], y)

        return encode_part

    encode_parts = for_each_part(encoding, make)

    @device
    def fill(k, y):
        for column in range(columns[k][0], columns[k][1]):
            y[column] = values[k]

    @device
    def encode(x, params, address):
        y = local_array(n)
        encode_parts(x, params, y)
        unrolled(n_constants, fill, y)
        store_row(address, y)

    return encode


@cache
def encode_backward(encoding: AbstractEncoding, precision: str, storage: str, n_private: int):
    """Device function (x, params, address, factor, i, n_all, dl_dparams, table).

    Adds factor times the gradient of the parameters; the gradients of the features of sample i of
    n_all are at the address. Those of the first `n_private` partitions go to a table of float32 in
    shared memory.
    """
    n, vector, gradients_vector = encoding.n_outputs, VECTORS[precision], VECTORS[storage]
    load_row = load_features(n, precision)

    def make(part):
        n_dims, width = part.encoding.n_dims, partition_width(part.encoding)
        n_partitions, n_params = len(part.encoding.partition_columns), part.encoding.n_params
        first_dim, first_column = part.first_dim, part.first_column
        first_param, backward = part.first_param, part.encoding.partition_backward_params
        has_private = n_private > 0 and first_param == 0
        if backward is None:

            @device
            def no_gradient(x, params, dl_dy, i, n_all, dl_dparams, table):
                return

            return no_gradient

        @device
        def backward_partition(partition, x, params, dl_dy, i, n_all, dl_dparams, table):
            first = first_column + partition * width
            mine = dl_dy[first : first + width]
            if has_private and partition < n_private:
                backward(partition, i, n_all, x, params, mine, table)
            else:
                backward(partition, i, n_all, x, params, mine, dl_dparams)

        @device
        def backward_part(x, params, dl_dy, i, n_all, dl_dparams, table):
            all_params = vector(params, first_param + n_params)
            all_gradients = gradients_vector(dl_dparams, first_param + n_params)
            unrolled(
                n_partitions, backward_partition, x[first_dim : first_dim + n_dims],
                all_params[first_param:], dl_dy, i, n_all, all_gradients[first_param:], table,
            )  # fmt: skip

        return backward_part

    backward_parts = for_each_part(encoding, make)

    @device
    def scale(k, dl_dy, factor):
        dl_dy[k] *= factor

    @device
    def encode_backward(x, params, address, factor, i, n_all, dl_dparams, table):
        dl_dy = local_array(n)
        load_row(address, dl_dy)
        unrolled(n, scale, dl_dy, factor)
        backward_parts(x, params, dl_dy, i, n_all, dl_dparams, table)

    return encode_backward


@cache
def fetch_features(n: int, precision: str):
    """Device function (features, i, pitch, address): a sample's features from global memory."""
    vector, store_row = VECTORS[precision], store_features(n, precision)

    @device
    def fetch(k, features, i, pitch, y):
        y[k] = load(features, np.uint32(i + np.uint32(k) * pitch))

    @device
    def fetch_features(features, i, pitch, address):
        y = local_array(n)
        unrolled(n, fetch, vector(features, n), i, pitch, y)
        store_row(address, y)

    return fetch_features


@cache
def put_features(n: int, precision: str):
    """Device function (address, features, i, pitch): the inverse of fetch_features."""
    vector, load_row = VECTORS[precision], load_features(n, precision)

    @device
    def put(k, features, i, pitch, y):
        store(features, np.uint32(i + np.uint32(k) * pitch), y[k])

    @device
    def put_features(address, features, i, pitch):
        y = local_array(n)
        load_row(address, y)
        unrolled(n, put, vector(features, n), i, pitch, y)

    return put_features
