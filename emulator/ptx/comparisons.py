"""Comparison and selection."""

import numpy as np

from emulator.ptx.dtypes import DTYPES, F32, FLOATS, HALVES, PREDICATE, S32, U16, U32, UNSIGNED
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.floats import UNPACK
from emulator.ptx.operation import Operation, decodes
from emulator.ptx.syntax import Pair

ORDERED = {  # False where an operand is NaN
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}
UNORDERED = {  # True where an operand is NaN
    "equ": lambda a, b: ~((a < b) | (a > b)),
    "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b),
    "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b),
    "geu": lambda a, b: ~(a < b),
}
INTEGER = {**ORDERED, "ne": np.not_equal}
UNSIGNED_NAMES = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
JOIN = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
ALL = 0xFFFFFFFF
SET_VALUES = {"f32": F32.type(1), "f16": U16.type(0x3C00), "bf16": U16.type(0x3F80)}


def choose(condition, a, b):
    """condition ? a : b"""
    if condition.shape[0] == 1:
        return a if condition[0] else b
    return np.where(condition, a, b)


def comparison(i, kind):
    """(function, dtype of the operands)"""
    name = i.modifiers[0]
    if kind in FLOATS:
        return {**ORDERED, **UNORDERED}[name], FLOATS[kind]
    if kind in HALVES:
        compare, unpack = {**ORDERED, **UNORDERED}[name], UNPACK[kind]
        return lambda a, b: compare(unpack(a), unpack(b)), DTYPES[kind]
    dtype = DTYPES[kind]
    if name in UNSIGNED_NAMES:
        return INTEGER[UNSIGNED_NAMES[name]], UNSIGNED[dtype.itemsize]
    return INTEGER[name], dtype


@decodes("setp")
def set_predicate(i):
    compare, dtype = comparison(i, i.type)
    d, a, b, *others = i.operands
    join = JOIN.get(i.modifiers[1])
    sources = [(a, dtype), (b, dtype), *((other, PREDICATE) for other in others)]
    flush = None if i.type not in FLOATS else i.has("ftz")
    if not isinstance(d, Pair):
        function = compare if join is None else lambda a, b, c: join(compare(a, b), c)
        return Operation(function, [(d, PREDICATE)], sources, flush)

    def both(a, b, *c):
        p = compare(a, b)
        if i.type.endswith("x2"):
            p, q = np.ascontiguousarray(p.T)
        else:
            q = ~p
        return (p, q) if join is None else (join(p, *c), join(q, *c))

    return Operation(both, [(d.first, PREDICATE), (d.second, PREDICATE)], sources, flush)


@decodes("set")
def set_value(i):
    kind, source = i.modifiers[-2:]
    compare, dtype = comparison(i, source)
    join = JOIN.get(i.modifiers[1])
    d, a, b, *others = i.operands
    packed = source.endswith("x2")
    result = DTYPES[kind]
    true = SET_VALUES.get(kind.removesuffix("x2"))
    if true is None:
        true = U16.type(0xFFFF) if packed else result.type(-1 if result.kind == "i" else ALL)

    def compared(a, b, *c):
        p = compare(a, b)
        if join is not None:
            p = join(p, *c)
        value = np.where(p, true, np.zeros_like(true))
        return value.reshape(-1).view(U32) if packed else value

    sources = [(a, dtype), (b, dtype), *((other, PREDICATE) for other in others)]
    return Operation(compared, [(d, result)], sources, i.has("ftz") and source in FLOATS)


@decodes("selp")
def select(i):
    dtype = DTYPES[i.type]
    d, a, b, p = i.operands
    sources = [(p, PREDICATE), (a, dtype), (b, dtype)]
    return Operation(choose, [(d, dtype)], sources)


@decodes("slct")
def select_by_sign(i):
    dtype, sign = DTYPES[i.modifiers[-2]], DTYPES[i.type]
    if sign not in (S32, F32):
        raise UnsupportedInstruction(f"unsupported form of '{i.opcode}'")
    d, a, b, c = i.operands
    return Operation(
        lambda a, b, c: choose(c >= 0, a, b),
        [(d, dtype)],
        [(a, dtype), (b, dtype), (c, sign)],
        i.has("ftz") if sign == F32 else None,
    )
