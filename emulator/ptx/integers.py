"""Integer arithmetic, shifts and bits."""

import numpy as np

from emulator.ptx.dtypes import DTYPES, S32, S64, U8, U16, U32, U64, UNSIGNED, scalar
from emulator.ptx.operation import Operation, allow, decodes, plain
from emulator.ptx.syntax import Immediate

FUNCTIONS = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "min": np.minimum,
    "max": np.maximum,
    "neg": np.negative,
    "abs": np.absolute,
    "cnot": lambda a: (a == 0).astype(a.dtype),
}
N_BITS_SET = np.array([bin(k).count("1") for k in range(1 << 16)], np.uint8)


@decodes(*FUNCTIONS, kind="integer")
def simple(i):
    allow(i)
    return plain(i, FUNCTIONS[i.name])


# sums and products


def saturate(x, dtype):
    limits = np.iinfo(dtype)
    if x.dtype.kind == "u":
        return np.minimum(x, x.dtype.type(min(limits.max, np.iinfo(x.dtype).max))).astype(dtype)
    own = np.iinfo(x.dtype)
    return np.clip(x, max(limits.min, own.min), min(limits.max, own.max)).astype(dtype)


@decodes("add", "sub", kind="integer")
def add(i):
    allow(i, "sat")
    function = np.add if i.name == "add" else np.subtract
    if i.has("sat"):
        return plain(i, lambda a, b: saturate(function(a.astype(S64), b.astype(S64)), S32))
    return plain(i, function, UNSIGNED[DTYPES[i.type].itemsize])


def multiply_high(a, b):
    dtype = a.dtype
    n_bits = 8 * dtype.itemsize
    if n_bits < 64:
        wide = np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
        return (a.astype(wide) * b.astype(wide) >> wide.type(n_bits)).astype(dtype)
    low, half = U64.type(0xFFFFFFFF), U64.type(32)
    x, y = a.view(U64), b.view(U64)
    x0, x1, y0, y1 = x & low, x >> half, y & low, y >> half
    middle = (x0 * y0 >> half) + (x0 * y1 & low) + (x1 * y0 & low)
    high = x1 * y1 + (x0 * y1 >> half) + (x1 * y0 >> half) + (middle >> half)
    if dtype == S64:
        high = high - np.where(a < 0, y, U64.type(0)) - np.where(b < 0, x, U64.type(0))
    return high.view(dtype)


def multiply_wide(a, b):
    wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
    return a.astype(wide) * b.astype(wide)


def product(i):
    """(function, dtype of the factors, dtype of the product)"""
    allow(i, "lo", "hi", "wide")
    dtype = DTYPES[i.type]
    if i.has("wide"):
        return multiply_wide, dtype, np.dtype(f"{dtype.kind}{2 * dtype.itemsize}")
    if i.has("hi"):
        return multiply_high, dtype, dtype
    dtype = UNSIGNED[dtype.itemsize]
    return np.multiply, dtype, dtype


@decodes("mul", kind="integer")
def multiply(i):
    function, factor, result = product(i)
    return plain(i, function, factor, result)


@decodes("mad", kind="integer")
def multiply_add(i):
    function, factor, result = product(i)
    d, a, b, c = i.operands
    return Operation(
        lambda a, b, c: function(a, b) + c, [(d, result)], [(a, factor), (b, factor), (c, result)]
    )


def divide(a, b):
    """Towards zero; a zero divisor gives all ones, as on the hardware."""
    zero = b == 0
    if zero.any():
        return np.where(zero, ~np.zeros(1, a.dtype), divide(a, np.where(zero, b.dtype.type(1), b)))
    quotient = a // b
    if a.dtype.kind == "i":
        inexact = quotient * b != a
        quotient = quotient + (inexact & ((a < 0) != (b < 0))).astype(a.dtype)
    return quotient


def remainder(a, b):
    return np.where(b == 0, ~np.zeros(1, a.dtype), a - divide(a, b) * b)


@decodes("div", "rem", kind="integer")
def division(i):
    allow(i)
    return plain(i, divide if i.name == "div" else remainder)


# shifts


@decodes("shl", "shr")
def shift(i):
    dtype = DTYPES[i.type]
    n_bits = 8 * dtype.itemsize
    function = np.left_shift if i.name == "shl" else np.right_shift
    d, a, amount = i.operands
    if isinstance(amount, Immediate):  # NumPy shifts everything out at the width
        amount = Immediate(min(amount.value & 0xFFFFFFFF, n_bits))
        return Operation(function, [(d, dtype)], [(a, dtype), (amount, dtype)])
    limit = U32.type(n_bits)
    return Operation(
        lambda a, n: function(a, np.minimum(n, limit).astype(dtype)),
        [(d, dtype)],
        [(a, dtype), (amount, U32)],
    )


@decodes("shf")
def funnel_shift(i):
    left, wrap = i.has("l"), i.has("wrap")

    def funnel(low, high, amount):
        amount = amount & U32.type(31) if wrap else np.minimum(amount, U32.type(32))
        pair = high.astype(U64) << U64.type(32) | low.astype(U64)
        if left:
            return (pair << amount.astype(U64) >> U64.type(32)).astype(U32)
        return (pair >> amount.astype(U64)).astype(U32)

    return plain(i, funnel)


# bits


def low_bits(n, dtype):
    """Masks of the low `n` bits, also for n of the width or more."""
    return ~(~np.zeros(1, dtype) << n)


@decodes("bfe")
def extract_field(i):
    dtype = DTYPES[i.type]
    bits, n_bits = UNSIGNED[dtype.itemsize], 8 * dtype.itemsize

    def extract(a, position, length):
        start = (position & U32.type(255)).astype(bits)
        length = (length & U32.type(255)).astype(bits)
        a = a.view(bits)
        field = a >> start & low_bits(length, bits)
        if dtype.kind == "u":
            return field
        top = np.minimum(start + length - bits.type(1), bits.type(n_bits - 1))
        negative = (a >> top & bits.type(1) != 0) & (length != 0)
        n_taken = np.minimum(length, bits.type(n_bits) - np.minimum(start, bits.type(n_bits)))
        return np.where(negative, field | ~low_bits(n_taken, bits), field).view(dtype)

    d, a, position, length = i.operands
    return Operation(extract, [(d, dtype)], [(a, dtype), (position, U32), (length, U32)])


@decodes("bfi")
def insert_field(i):
    dtype = DTYPES[i.type]

    def insert(a, b, position, length):
        start = (position & U32.type(255)).astype(dtype)
        mask = low_bits((length & U32.type(255)).astype(dtype), dtype) << start
        return b & ~mask | a << start & mask

    d, a, b, position, length = i.operands
    sources = [(a, dtype), (b, dtype), (position, U32), (length, U32)]
    return Operation(insert, [(d, dtype)], sources)


def count_ones(a):
    return N_BITS_SET[a.view(U16).reshape(a.shape[0], -1)].sum(axis=1, dtype=U32)


def n_significant(a):
    """Bits up to the highest one."""
    n_bits = 8 * a.dtype.itemsize
    step = 1
    while step < n_bits:
        a = a | a >> a.dtype.type(step)
        step *= 2
    return count_ones(a)


def find_highest(a, as_shift):
    n_bits = U32.type(8 * a.dtype.itemsize)
    if a.dtype.kind == "i":
        a = np.where(a < 0, ~a, a).view(UNSIGNED[a.dtype.itemsize])
    n = n_significant(a)
    position = n_bits - n if as_shift else n - U32.type(1)
    return np.where(n == 0, U32.type(0xFFFFFFFF), position)


def reverse_bits(a):
    n_bytes = a.dtype.itemsize
    ones = np.unpackbits(a.view(U8).reshape(-1, n_bytes), axis=1, bitorder="little")
    return np.packbits(ones[:, ::-1], axis=1, bitorder="little").reshape(-1).view(a.dtype)


@decodes("popc", "clz", "bfind", "brev")
def count_bits(i):
    dtype = DTYPES[i.type]
    if i.name == "bfind":
        return plain(i, lambda a: find_highest(a, i.has("shiftamt")), result=U32)
    if i.name == "brev":
        return plain(i, reverse_bits)
    n_bits = U32.type(8 * dtype.itemsize)
    return plain(
        i, count_ones if i.name == "popc" else lambda a: n_bits - n_significant(a), result=U32
    )


@decodes("lop3")
def logic3(i):
    *operands, table = i.operands
    table = table.value

    def logic(a, b, c):
        result = scalar(0, U32)
        for k in range(8):
            if table >> k & 1:
                term = (a if k & 4 else ~a) & (b if k & 2 else ~b) & (c if k & 1 else ~c)
                result = result | term
        return result

    d, a, b, c = operands
    return Operation(logic, [(d, U32)], [(a, U32), (b, U32), (c, U32)])


@decodes("prmt")
def permute_bytes(i):
    allow(i)

    def permute(a, b, selector):
        n = max(a.shape[0], b.shape[0], selector.shape[0])
        pool = np.empty((n, 8), U8)
        pool[:, :4] = a.view(U8).reshape(-1, 4)
        pool[:, 4:] = b.view(U8).reshape(-1, 4)
        result = np.empty((n, 4), U8)
        for k in range(4):
            nibble = selector >> U32.type(4 * k) & U32.type(15)
            if selector.shape[0] == 1:
                byte = pool[:, int(nibble[0]) & 7]
            else:
                byte = pool[np.arange(n), nibble & U32.type(7)]
            sign = np.negative(byte >> U8.type(7))
            result[:, k] = np.where(nibble & U32.type(8), sign, byte)
        return result.reshape(-1).view(U32)

    return plain(i, permute, U32)
