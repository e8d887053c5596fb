"""Moves, packing, address conversion, and conversion between types."""

import numpy as np

from emulator.ptx.dtypes import (
    DTYPES,
    F32,
    F64,
    FLOATS,
    HALVES,
    PREDICATE,
    U32,
    U64,
    UNSIGNED,
    join,
    scalar,
)
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.floats import PACK, UNPACK, rectify, rounding_of, saturate
from emulator.ptx.integers import saturate as saturate_integer
from emulator.ptx.memory import WINDOWS
from emulator.ptx.operation import Operation, allow, decodes, plain
from emulator.ptx.syntax import Vector

TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


# moves


def unpack(n_parts, dtype):
    def split(value):
        return tuple(np.ascontiguousarray(value.view(dtype).reshape(-1, n_parts).T))

    return split


@decodes("mov")
def move(i):
    d, a = i.operands
    dtype = DTYPES[i.type]
    vector = a if isinstance(a, Vector) else d
    if not isinstance(vector, Vector):
        return Operation(lambda a: a, [(d, dtype)], [(a, dtype)])
    whole = UNSIGNED[dtype.itemsize]
    part = UNSIGNED[whole.itemsize // len(vector.parts)]
    if vector is a:
        sources = [(o, part) for o in a.parts]
        return Operation(lambda *parts: join(parts, whole), [(d, whole)], sources)
    return Operation(unpack(len(d.parts), part), [(o, part) for o in d.parts], [(a, whole)])


@decodes("cvta")
def convert_address(i):
    dtype = DTYPES[i.type]
    space = next(m.split("::")[0] for m in i.modifiers if m != "to")
    window = dtype.type(WINDOWS.get(space, 0))
    return plain(i, (lambda a: a - window) if i.has("to") else (lambda a: a + window))


@decodes("isspacep")
def is_in_space(i):
    space = i.type.split("::")[0]
    starts = sorted([*WINDOWS.values(), 1 << 63])
    start = WINDOWS.get(space, 0)
    end = next(limit for limit in starts if limit > start)

    def test(a):
        return (a >= U64.type(start)) & (a < U64.type(end))

    return Operation(test, [(i.operands[0], PREDICATE)], [(i.operands[1], U64)])


@decodes("createpolicy")
def create_policy(i):
    return Operation(lambda: scalar(0, U64), [(i.operands[0], U64)], [])


# conversions


def to_integer(round_, dtype):
    """Rounds and clamps; NaN gives 0, or the top bit where 64 bits are involved."""
    limits = np.iinfo(dtype)

    def convert(x):
        bad_value = 0
        if 8 in (dtype.itemsize, x.dtype.itemsize):
            bad_value = limits.min if dtype.kind == "i" else limits.max // 2 + 1
        x = round_(x)
        if dtype == np.int32 and x.dtype == F32:
            fits = x < F32.type(2.0**31)  # lower values convert to the least integer
            if fits.all():
                return x.astype(dtype)
        x = x.astype(F64)
        low, high = float(limits.min), float(limits.max) + (1.0 if dtype.itemsize < 8 else 0.0)
        inside = (x >= low) & (x < high)
        result = np.where(inside, x, 0.0).astype(dtype)
        result = np.where(x >= high, dtype.type(limits.max), result)
        result = np.where(x < low, dtype.type(limits.min), result)
        return np.where(np.isnan(x), dtype.type(bad_value), result)

    return convert


def to_tf32(nearest_even):
    def convert(x):
        bits = x.view(U32)
        up = U32.type(0x1000)
        if nearest_even:
            up = U32.type(0x0FFF) + (bits >> U32.type(13) & U32.type(1))
        rounded = np.where(np.isfinite(x), bits + up, bits) & U32.type(0xFFFFE000)
        return np.where(np.isnan(x), U32.type(0x7FFFFFFF), rounded)

    return convert


@decodes("cvt")
def convert(i):
    target, source = (m for m in i.modifiers if m in DTYPES)
    allow(i, "rn", "rz", "rm", "rp", "rna", *TO_INTEGER, "ftz", "sat", "relu", target)
    d, *inputs = i.operands
    dtype, result = DTYPES[source], DTYPES[target]
    flush = i.has("ftz") if source in FLOATS or target in FLOATS else None
    rounding = rounding_of(i)
    if target in (*FLOATS, *HALVES, "tf32"):
        steps = to_float(i, source, target, rounding)
    elif source in (*FLOATS, *HALVES):
        whole = next((TO_INTEGER[m] for m in i.modifiers if m in TO_INTEGER), np.trunc)
        steps = [UNPACK[source]] if source in HALVES else []
        steps.append(to_integer(whole, result))
    elif i.has("sat"):
        steps = [lambda a: saturate_integer(a, result)]
    else:
        steps = [lambda a: a.astype(result)]
    function = chain(steps)
    if target.endswith("x2"):
        return Operation(
            lambda high, low: join((function(low), function(high)), U32),
            [(d, result)],
            [(a, dtype) for a in inputs],
            flush,
        )
    return Operation(function, [(d, result)], [(inputs[0], dtype)], flush, rounding)


def to_float(i, source, target, rounding):
    if target not in FLOATS and (rounding != "rn" or source.endswith("x2")):
        raise UnsupportedInstruction(f"unsupported form of '{i.opcode}'")
    whole = next((TO_INTEGER[m] for m in i.modifiers if m in TO_INTEGER), None)
    steps = []
    if source in HALVES:
        steps.append(UNPACK[source])
    elif source not in FLOATS and target not in FLOATS:
        steps.append(lambda a: a.astype(F64))
    if whole is not None:
        steps.append(whole)
    if target in FLOATS:
        dtype = FLOATS[target]
        flushes = i.has("ftz") and source == target and whole is None
        steps.append((lambda a: a * dtype.type(1)) if flushes else lambda a: a.astype(dtype))
    if i.has("sat"):
        steps.append(saturate)
    if i.has("relu"):
        steps.append(rectify)
    if target == "tf32":
        steps.append(to_tf32(not i.has("rna")))
    elif target not in FLOATS:
        steps.append(PACK[target.removesuffix("x2")])
    return steps


def chain(steps):
    def run(value):
        for step in steps:
            value = step(value)
        return value

    return steps[0] if len(steps) == 1 else run
