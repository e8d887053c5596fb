"""Arithmetic of float32, float64, float16 and bfloat16, scalar and packed."""

import numpy as np

from emulator.ptx import float_mode
from emulator.ptx.dtypes import DTYPES, F16, F32, F64, FLOATS, S64, U16, U32, U64
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.operation import Operation, decodes, plain, then

MIDPOINT = np.iinfo(S64).min  # the low 29 bits of a float64 between two float32, shifted left

# halves


def unpack_f16(bits):
    return bits.view(F16).astype(F32)


def unpack_f16x2(bits):
    return bits.view(F16).reshape(-1, 2).astype(F32)


def unpack_bf16(bits):
    return (bits.astype(U32) << U32.type(16)).view(F32)


def unpack_bf16x2(bits):
    return unpack_bf16(bits.view(U16).reshape(-1, 2))


def to_bf16(x):
    """float32 or float64 to bfloat16 bits, to nearest even."""
    bits = round_to_odd(x).view(U32) if x.dtype == F64 else x.view(U32)
    odd = bits >> U32.type(16) & U32.type(1)
    rounded = (bits + U32.type(0x7FFF) + odd >> U32.type(16)).astype(U16)
    return np.where(np.isnan(x), U16.type(0x7FFF), rounded)


def round_to_odd(x):
    """float64 to float32 so that a second rounding, to fewer bits, is right."""
    y = x.astype(F32)
    bits = y.view(U32)
    fix = (y != x) & (bits & U32.type(1) == 0) & np.isfinite(y)
    away = np.abs(x) > np.abs(y)
    return np.where(fix, np.where(away, bits + U32.type(1), bits - U32.type(1)), bits).view(F32)


UNPACK = {
    "f16": unpack_f16,
    "f16x2": unpack_f16x2,
    "bf16": unpack_bf16,
    "bf16x2": unpack_bf16x2,
}
PACK = {
    "f16": lambda x: x.astype(F16).view(U16),
    "f16x2": lambda x: x.astype(F16).reshape(-1).view(U32),
    "bf16": to_bf16,
    "bf16x2": lambda x: to_bf16(x).reshape(-1).view(U32),
}


def flush_below(least):
    return lambda x: np.where(np.abs(x) < least, np.copysign(x.dtype.type(0), x), x)


def half(i, function):
    """Widen, apply, round once."""
    unpack, pack = UNPACK[i.type], PACK[i.type]
    if i.has("ftz"):
        flush = flush_below(2.0**-126 if i.type.startswith("b") else 2.0**-14)
        unpack, pack = then(unpack, flush), then(flush, pack)
    if i.has("sat"):
        function = then(function, saturate)
    if i.has("relu"):
        function = then(function, rectify)
    if i.has("rz"):
        raise UnsupportedInstruction(f"unsupported rounding in '{i.opcode}'")
    return plain(i, lambda *values: pack(function(*map(unpack, values))), flush=False)


# float32 and float64


def saturate(x):
    return np.fmin(np.fmax(x, x.dtype.type(0)), x.dtype.type(1))


def floating(i, function):
    if i.has("sat"):
        function = then(function, saturate)
    return plain(i, function, flush=i.has("ftz"), rounding=rounding_of(i))


def rounding_of(i):
    rounding = next((m for m in i.modifiers if m in float_mode.ROUNDINGS), "rn")
    if rounding != "rn" and not float_mode.AVAILABLE:
        raise UnsupportedInstruction(f"no control of the rounding mode, for '{i.opcode}'")
    return rounding


def sum_to_odd(p, c):
    """p + c in float64, rounded so that a second rounding, to fewer bits, is right."""
    total = p + c
    part = total - p
    error = (p - (total - part)) + (c - part)
    bits = total.view(S64)
    fix = (error != 0) & (bits & 1 == 0) & np.isfinite(total)
    return np.where(fix, np.where((error > 0) == (total > 0), bits + 1, bits - 1), bits).view(F64)


def fused_f32(a, b, c):
    """The product is exact in float64; the sum needs care where it lands on a midpoint."""
    product = a.astype(F64) * b
    total = product + c
    bits = total.view(S64) << 35
    if bits.min() == MIDPOINT:
        k = np.flatnonzero(bits == MIDPOINT)
        product, c = (np.broadcast_to(x, total.shape)[k] for x in (product, c))
        total[k] = sum_to_odd(product, c.astype(F64))
    return total.astype(F32)


def two_product(a, b):
    def split(x):
        t = x * 134217729.0
        high = t - (t - x)
        return high, x - high

    product = a * b
    (a1, a0), (b1, b0) = split(a), split(b)
    return product, ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0


def fused_f64(a, b, c):
    product, low = two_product(a, b)
    high = product + c
    part = high - product
    error = (product - (high - part)) + (c - part)
    result = high + sum_to_odd(error, low)
    return np.where(np.isfinite(result), result, a * b + c)


def fused_half(a, b, c):
    return sum_to_odd(a.astype(F64) * b, c.astype(F64))


def ordered_zeros(function, join):
    """A minimum or maximum for which -0 is below 0: NumPy leaves open which of them it takes."""

    def extremum(a, b):
        r = function(a, b)
        bits = U32 if r.dtype == F32 else U64
        of_zeros = (r == 0) & (a == b)
        return np.where(of_zeros, join(a.view(bits), b.view(bits)), r.view(bits)).view(r.dtype)

    return extremum


minimum = ordered_zeros(np.fmin, np.bitwise_or)  # of a NaN and a number, the number
maximum = ordered_zeros(np.fmax, np.bitwise_and)
minimum_or_nan = ordered_zeros(np.minimum, np.bitwise_or)
maximum_or_nan = ordered_zeros(np.maximum, np.bitwise_and)


def rectify(x):
    return maximum_or_nan(x, np.zeros(1, x.dtype))


def through_f64(function):
    return lambda x: function(x.astype(F64)).astype(F32)


def fold(function):
    def folded(a, b, *more):
        result = function(a, b)
        return folded(result, *more) if more else result

    return folded


BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
UNARY = {
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
    "rsqrt": through_f64(lambda x: 1 / np.sqrt(x)),
    "sin": through_f64(np.sin),
    "cos": through_f64(np.cos),
    "ex2": through_f64(np.exp2),
    "lg2": through_f64(np.log2),
    "tanh": through_f64(np.tanh),
}


@decodes("add", "sub", "mul", kind="half")
def half_binary(i):
    return half(i, BINARY[i.name])


@decodes("fma", kind="half")
def half_fused(i):
    return half(i, fused_half)


@decodes("neg", "abs", kind="half")
def half_sign(i):
    signs = DTYPES[i.type].type(0x80008000 if i.type.endswith("x2") else 0x8000)
    if i.name == "neg":
        return plain(i, lambda a: a ^ signs)
    return plain(i, lambda a: a & ~signs)


@decodes("add", "sub", "mul", "div", kind="float")
def binary(i):
    return floating(i, BINARY[i.name])


@decodes("fma", "mad", kind="float")
def fused(i):
    if i.type == "f32":
        return floating(i, fused_f32)
    if rounding_of(i) != "rn":
        raise UnsupportedInstruction(f"unsupported rounding in '{i.opcode}'")
    return floating(i, fused_f64)


@decodes("neg", "abs", kind="float")
def sign(i):
    one = FLOATS[i.type].type(1)
    function = np.negative if i.name == "neg" else np.absolute
    return floating(i, (lambda a: function(a * one)) if i.has("ftz") else function)


@decodes("min", "max", kind="float")
@decodes("min", "max", kind="half")
def extremum(i):
    if i.has("xorsign"):
        raise UnsupportedInstruction(f"unsupported .xorsign in '{i.opcode}'")
    functions = (minimum_or_nan, maximum_or_nan) if i.has("NaN") else (minimum, maximum)
    function = functions[i.name == "max"]
    if i.type not in FLOATS:
        return half(i, fold(function))
    one = FLOATS[i.type].type(1)
    return floating(i, fold(then(function, lambda r: r * one) if i.has("ftz") else function))


@decodes(*UNARY, kind="float")
@decodes(*UNARY, kind="half")
def unary(i):
    if i.type == "f64" and i.has("approx"):
        raise UnsupportedInstruction(f"unsupported .approx in '{i.opcode}'")
    if i.type == "f64" and i.name == "rsqrt":
        return floating(i, lambda x: 1 / np.sqrt(x))
    return floating(i, UNARY[i.name]) if i.type in FLOATS else half(i, UNARY[i.name])


@decodes("copysign")
def copy_sign(i):
    return plain(i, lambda sign, magnitude: np.copysign(magnitude, sign))


@decodes("testp")
def test_property(i):
    dtype = DTYPES[i.type]
    tiny = np.finfo(dtype).tiny
    test = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & ((np.abs(x) >= tiny) | (x == 0)),
        "subnormal": lambda x: (np.abs(x) < tiny) & (x != 0),
    }[i.modifiers[0]]
    return Operation(test, [(i.operands[0], DTYPES["pred"])], [(i.operands[1], dtype)], flush=False)
