"""float16 and bfloat16 in device code: conversions from and to float32, alone and in pairs.

A pair is a 32-bit word, the first number in its low half. Rounding is to the nearest, ties to even.
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.architecture import AMPERE, compute_capability
from numbanet.device import device, float_bits, float_from_bits, select, unrolled
from numbanet.ptx import instruction

HIGH_HALF = 0xFFFF0000
MAGNITUDE, INFINITY = 0x7FFFFFFF, 0x7F800000
BFLOAT_NAN = np.uint32(0x7FFF)
BELOW_HALF_UNIT = 0x7FFF
BIT, WIDTH = 1, 16


def pair_of_floats(operation):
    """Function (low, high) -> word: an instruction that converts two float32."""
    return instruction(f"{operation} $0, $2, $1;", types.uint32, types.float32, types.float32)


# For compute capability 8.0 and more.
ROUND_PAIR = {"float16": "cvt.rn.f16x2.f32", "bfloat16": "cvt.rn.bf16x2.f32"}
convert_float16_pair, convert_bfloat16_pair = map(pair_of_floats, ROUND_PAIR.values())
convert_bfloat16 = instruction("cvt.rn.bf16.f32 $0, $1;", types.uint16, types.float32)


@intrinsic
def join_float16(typingctx, low, high):
    """Word of two float32, each converted by itself."""

    def codegen(context, builder, signature, args):
        half, index = ir.HalfType(), ir.IntType(32)
        pair = ir.Constant(ir.VectorType(half, 2), ir.Undefined)
        for k, value in enumerate(args):
            pair = builder.insert_element(pair, builder.fptrunc(value, half), index(k))
        return builder.bitcast(pair, index)

    return types.uint32(types.float32, types.float32), codegen


@intrinsic
def float16_pair_to_floats(typingctx, word):
    """Both numbers of a word as float32."""
    result = types.UniTuple(types.float32, 2)

    def codegen(context, builder, signature, args):
        pair = builder.bitcast(args[0], ir.VectorType(ir.HalfType(), 2))
        halves = [builder.extract_element(pair, ir.IntType(32)(k)) for k in range(2)]
        return context.make_tuple(
            builder, result, [builder.fpext(half, ir.FloatType()) for half in halves]
        )

    return result(types.uint32), codegen


@device
def round_to_bfloat16(x):  # for GPUs without an instruction for it; returns 32 bits
    bits = float_bits(x)
    odd = (bits >> WIDTH) & BIT
    rounded = (bits + BELOW_HALF_UNIT + odd) >> WIDTH
    return select((bits & MAGNITUDE) > INFINITY, BFLOAT_NAN, rounded)


@device
def float_to_bfloat16(x):
    """Bits of the nearest bfloat16."""
    if compute_capability() >= AMPERE:
        return convert_bfloat16(x)
    return np.uint16(round_to_bfloat16(x))


@device
def bfloat16_to_float(bits):
    return float_from_bits(np.uint32(bits) << WIDTH)


@device
def float16_to_float(bits):
    return float16_pair_to_floats(bits)[0]


@device
def floats_to_float16_pair(low, high):
    if compute_capability() >= AMPERE:
        return convert_float16_pair(low, high)
    return join_float16(low, high)


@device
def floats_to_bfloat16_pair(low, high):
    if compute_capability() >= AMPERE:
        return convert_bfloat16_pair(low, high)
    return round_to_bfloat16(low) | (round_to_bfloat16(high) << WIDTH)


@device
def bfloat16_pair_to_floats(word):
    low = float_from_bits(word << WIDTH)
    return low, float_from_bits(word & HIGH_HALF)


TO_PAIR = {"float16": floats_to_float16_pair, "bfloat16": floats_to_bfloat16_pair}
TO_FLOATS = {"float16": float16_pair_to_floats, "bfloat16": bfloat16_pair_to_floats}


@cache
def in_pairs(to_pair, n_words: int):
    """Device function (numbers, words): make a word of halves of neighbouring float32 each."""

    @device
    def to_word(q, numbers, words):
        words[q] = to_pair(numbers[2 * q], numbers[2 * q + 1])

    @device
    def in_pairs(numbers, words):
        unrolled(n_words, to_word, numbers, words)

    return in_pairs


def to_pairs(precision: str, n_words: int):
    """Device function (numbers, words): round neighbouring float32 to a word of halves each."""
    return in_pairs(TO_PAIR[precision], n_words)
