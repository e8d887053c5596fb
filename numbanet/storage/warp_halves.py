"""Conversion of pairs of halves to float32 by tensor cores, for all lanes of a warp together.

Lane 4 g + t holds columns 2 t and 2 t + 1 of row g of a matrix of halves, and of row g + 8, and the
same of a product in float32: words in, floats out, of the same places. So multiplying by the
identity converts two words, and by one above the other subtracts besides: four numbers of each
lane by one instruction, exact but for one rounding, where a conversion takes one each. Zeros are
multiplied with the numbers of other lanes: where a number is infinite or NaN, four lanes get NaN.
"""

from functools import cache

import numpy as np
from numba import types

from numbanet.device import device, lane_number
from numbanet.ptx import instruction

ONE_OF = {"float16": np.uint32(0x3C00), "bfloat16": np.uint32(0x3F80)}  # their bits
LETTERS = {"float16": "f16", "bfloat16": "bf16"}
SIGN, HIGH = 0x8000, 16


@cache
def multiplied(precision: str, n_below: int):
    """Function (a, b): four floats, the product of a [16, 8 n_below] and b [8 n_below, 8].

    a is a tuple of 2 n_below words, b of n_below.
    """
    words, more = types.UniTuple(types.uint32, 2 * n_below), types.UniTuple(types.uint32, n_below)
    names = [f"${k}" for k in range(4 + 3 * n_below)]
    a, b = names[4 : 4 + 2 * n_below], names[4 + 2 * n_below :]
    kind, zero = LETTERS[precision], "0f00000000"
    text = (
        f"mma.sync.aligned.m16n8k{8 * n_below}.row.col.f32.{kind}.{kind}.f32 "
        f"{{$0,$1,$2,$3}}, {{{','.join(a)}}}, {{{','.join(b)}}}, {{{','.join([zero] * 4)}}};"
    )
    return instruction(text, types.UniTuple(types.float32, 4), words, more)


@cache
def units(precision: str):
    """Device function x -> the lane's words of the identity matrix, and of its negative."""
    one = ONE_OF[precision]

    @device
    def units(x):
        lane = lane_number(x)
        column, row = lane >> 2, lane & 3  # rows 2 row and 2 row + 1
        shift = (column & 1) * HIGH
        is_one = np.uint32((column >> 1) == row)
        return (is_one * one) << shift, (is_one * (one | SIGN)) << shift

    return units


@cache
def floats_and_differences(precision: str):
    """Device function (units, low, high, other_low, other_high) -> floats of four words of pairs.

    The two of low and of other_low, then those of high - low and of other_high - other_low.
    """
    convert, subtract = multiplied(precision, 1), multiplied(precision, 2)

    @device
    def floats_and_differences(units, low, high, other_low, other_high):
        one, minus_one = units
        floats = convert((low, other_low), (one,))
        return floats, subtract((low, other_low, high, other_high), (minus_one, one))

    return floats_and_differences
