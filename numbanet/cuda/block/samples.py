"""Features of the sample of a lane of a fused kernel, and rows of them in shared memory.

A sample's features are a row of halves in shared memory, and so are their gradients.
"""

from functools import cache, reduce

import numpy as np

from numbanet.device import (
    ZERO,
    device,
    four_from,
    local_array,
    nothing,
    set_four,
    uint32_view,
    unrolled,
)
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import nan_bits, zero_or_nan
from numbanet.storage.halves import TO_PAIR
from numbanet.storage.views import VECTORS
from numbanet.tiles.copies import PIECE, PIECE_HALVES
from numbanet.tiles.instructions import load_words, store_words, warp_barrier


@cache
def store_pairs(n: int, piece_pitch: int = PIECE):
    """Device function (address, words): write a row of n halves, two in a word.

    Its pieces of 8 halves are so many bytes apart.
    """
    n_pieces = n // PIECE_HALVES

    @device
    def store_piece(k, address, words):
        i = 4 * k
        piece = four_from(words, i)
        store_words(address + piece_pitch * k, piece)

    @device
    def store_pairs(address, words):
        unrolled(n_pieces, store_piece, address, words)

    return store_pairs


@cache
def load_pairs(n: int, piece_pitch: int = PIECE):
    """Device function (address, words): read a row of n halves, as store_pairs writes it."""
    n_pieces = n // PIECE_HALVES

    @device
    def load_piece(k, address, words):
        piece, i = load_words(address + piece_pitch * k), 4 * k
        set_four(words, i, piece)

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


def in_pairs_of(encoding: AbstractEncoding) -> bool:
    """Whether all partitions begin and end between pairs of features."""
    return all(
        part.first_column % 2 == 0 and part.encoding.partition_width % 2 == 0
        for part in encoding.parts
    )


def rounds_float32(encoding: AbstractEncoding, precision: str) -> bool:
    """Whether encode_in_words takes parameters in float32, and computes the same with them."""
    return all(
        part.encoding.n_params == 0
        or (
            in_pairs_of(encoding)
            and part.encoding.pairs_of_float32
            and part.encoding.partition_forward_pairs(precision, part.first_param) is not None
        )
        for part in encoding.parts
    )


@cache
def encode_in_words(
    encoding: AbstractEncoding, precision: str, given: tuple[int, ...] = (),
    storage: str | None = None,
):  # fmt: skip
    """Device function (x, params, words): the features of a sample, two in a word.

    x are its inputs, params is the address of the encoding's parameters, of type `storage`, which
    is the precision if left out; all lanes of a warp call it. Partitions whose words are given are
    left out, where all features are in pairs. Where an input is not finite, the first word is NaN,
    which is enough for a network. Features are kept as pairs of halves as soon as both are there,
    so that few registers are in use; those with odd places are kept as floats.
    """
    n, vector, constants = encoding.n_outputs, VECTORS[storage or precision], encoding.constants
    n_words, to_pair = n // 2, TO_PAIR[precision]
    in_pairs = in_pairs_of(encoding)
    n_floats, step = (1, 2) if in_pairs else (n, 1)
    filled = [
        (column // step, value)
        for first, stop, value in constants
        for column in range(first, stop, step)
    ]
    n_filled = len(filled)
    places = tuple(place for place, _ in filled) or (0,)
    values = tuple(np.float32(value) for _, value in filled) or (ZERO,)
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
        forward_pairs = part.encoding.partition_forward_pairs(precision, first_param)
        has_pairs, forward_pairs = in_pairs and forward_pairs is not None, forward_pairs or nothing
        is_given = tuple((first_column + k * width) // 2 in given for k in range(n_partitions))

        @device
        def encode_partition(partition, x, params, y, words):
            first = first_column + partition * width
            if is_given[partition]:
                return
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
    def fill(k, y, words):  # not in a loop of its own, for which NVVM loses the word before
        if in_pairs:
            words[places[k]] = to_pair(values[k], values[k])
        else:
            y[places[k]] = values[k]

    @device
    def encode_in_words(x, params, words):
        y = local_array(n_floats)
        encode_parts(x, params, y, words)
        unrolled(n_filled, fill, y, words)
        if not in_pairs:
            unrolled(n_words, pack, 0, y, words)
        words[0] = words[0] | nan_bits(check(x))

    return encode_in_words
