"""Operations on values: constants are computed at once, long integers in 32 bits where they fit."""

import math
import operator
from abc import ABC, abstractmethod

import numpy as np

from numbanet.exports.constants import constant
from numbanet.exports.divisions import Divisions
from numbanet.exports.program import (
    BOOL,
    F32,
    F64,
    I32,
    INTEGERS,
    LONG,
    NARROW,
    RANGES,
    U32,
    U64,
    Value,
)  # fmt: skip

COMPARISONS = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt,
    "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
FLOAT_OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
    "min": min, "max": max, "pow": operator.pow,
}  # fmt: skip
INTEGER_OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul,
    "floordiv": lambda a, b: a // b if b else 0, "mod": lambda a, b: a % b if b else 0,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
    "shl": lambda a, b: a << b, "shr": operator.rshift, "min": min, "max": max,
}  # fmt: skip
# Their low 32 bits follow from those of their operands.
SHIFTS = ("shl", "shr")
LOW_BITS = ("add", "sub", "mul", "and", "or", "xor")


def bounds(op, a, b) -> tuple[int, int] | None:
    """Bounds of the exact result, where they are easy to determine."""
    if op in ("add", "sub", "mul", "min", "max"):
        apply = INTEGER_OPERATIONS[op]
        ends = [apply(i, j) for i in (a.low, a.high) for j in (b.low, b.high)]
        return min(ends), max(ends)
    if op == "and" and min(a.low, b.low) >= 0:
        return 0, min(a.high, b.high)
    if op in ("or", "xor") and min(a.low, b.low) >= 0:
        return 0, 2 ** max(a.high.bit_length(), b.high.bit_length()) - 1
    if op == "shr" and b.is_constant:
        return a.low >> b.value, a.high >> b.value
    if op == "shr" and a.low >= 0 and b.low >= 0:
        return 0, a.high >> min(b.low, 64)
    if op == "shl" and b.low >= 0 and b.high < 64:
        return min(a.low << b.low, a.low << b.high), max(a.high << b.low, a.high << b.high)
    if op == "floordiv" and a.low >= 0 and b.low > 0:
        return a.low // b.high, a.high // b.low
    if op == "mod" and a.low >= 0 and b.low > 0:
        return 0, min(a.high, b.high - 1)
    return None


def fits(value: Value, type: str) -> bool:
    return RANGES[type][0] <= value.low and value.high <= RANGES[type][1]


def unit_of_rounding(value: Value) -> float | None:
    """Multiple to which adding this constant rounds a float32: 2^(k - 23) for 1.5 * 2^k."""
    if not value.is_constant or value.value <= 0:
        return None
    mantissa, exponent = math.frexp(float(value.value))
    return 2.0 ** (exponent - 24) if mantissa == 0.75 and exponent >= 24 else None


class Arithmetic(Divisions, ABC):
    """Factory of values; `emit` inserts one that is not constant into the program.

    Compilers of shaders take x + c - c for x, where device code rounds by it. With `rounds` it
    becomes an operation of its own.
    """

    rounds = False
    rounded: dict[int, tuple[Value, float]]

    @abstractmethod
    def emit(self, op, type, args, low=None, high=None) -> Value:
        """Insert an operation, with its bounds if known; returns its result."""

    def binary(self, op: str, type: str, a: Value, b: Value) -> Value:
        """Value of a op b for operands of that type."""
        if a.is_constant and b.is_constant and (found := self._folded(op, type, a, b)) is not None:
            return found
        if op in COMPARISONS:
            return self._compare(op, type, a, b)
        if type not in INTEGERS:
            return self._float(op, type, a, b)
        if op in ("floordiv", "mod") and min(a.low, b.low) < 0:
            return self._floored(op, type, a, b)
        return self._neutral(op, type, a, b) or self._integer(op, type, a, b)

    def _folded(self, op, type, a, b):
        if op in COMPARISONS:
            return constant(BOOL, COMPARISONS[op](a.value, b.value))
        if type in (F32, F64):
            if op not in FLOAT_OPERATIONS:
                return None
            with np.errstate(all="ignore"):
                kind = np.float32 if type == F32 else np.float64
                return constant(type, FLOAT_OPERATIONS[op](kind(a.value), kind(b.value)))
        return constant(type, INTEGER_OPERATIONS[op](int(a.value), int(b.value)))

    def _float(self, op, type, a, b):
        if op == "mul" and 1.0 in (number := [v.value if v.is_constant else None for v in (a, b)]):
            return b if number[0] == 1.0 else a
        if op in ("floordiv", "mod"):
            return self._float_division(op, a, b)
        if op == "pow" and b.is_constant and float(b.value).is_integer() and abs(b.value) <= 1024:
            return self._power(a, int(b.value))
        if self.rounds and op in ("add", "sub") and (unit := unit_of_rounding(b)) is not None:
            if op == "add":
                shifted = self.emit(op, type, (a, b))
                self.rounded[id(shifted)] = a, unit
                return shifted
            if id(a) in self.rounded and self.rounded[id(a)][1] == unit:
                return self._multiple(*self.rounded[id(a)])
        return self.emit(op, type, (a, b))

    def _multiple(self, value, unit) -> Value:
        """Multiple of a power of two that is nearest to a value."""
        count = self.binary("mul", F32, value, constant(F32, 1 / unit))
        count = self.emit("round", F32, (count,))
        return self.binary("mul", F32, count, constant(F32, unit))

    @staticmethod
    def _neutral(op, type, a, b):
        """The operand that a neutral constant keeps, or a constant that absorbs it; else None."""
        if b.is_constant and b.value == 0:
            if op in ("add", "sub", "or", "xor", "shl", "shr"):
                return a
            if op in ("mul", "and"):
                return b
        if a.is_constant and a.value == 0:
            if op in ("add", "or", "xor"):
                return b
            if op in ("mul", "and", "shl", "shr"):
                return a
        if op == "mul" and b.is_constant and b.value == 1:
            return a
        if op == "mul" and a.is_constant and a.value == 1:
            return b
        return None

    def _integer(self, op, type, a, b):
        found = bounds(op, a, b)
        if found is not None and not (RANGES[type][0] <= found[0] and found[1] <= RANGES[type][1]):
            found = None  # it may wrap
        if type in LONG and found is not None:
            for narrow in (U32, I32):
                low, high = RANGES[narrow]
                exact = low <= found[0] and found[1] <= high and (op not in SHIFTS or b.high < 32)
                if exact and fits(a, narrow) and fits(b, narrow):
                    args = self.cast(a, narrow), self.cast(b, narrow)
                    return self.cast(self.emit(op, narrow, args, *found), type)
        return self.emit(op, type, (a, b), *(found or (None, None)))

    def _compare(self, op, type, a, b):
        if type in INTEGERS:
            if known := self._known(op, a, b):
                return known
            for narrow in (U32, I32):
                if type in LONG and fits(a, narrow) and fits(b, narrow):
                    return self.emit(op, BOOL, (self.cast(a, narrow), self.cast(b, narrow)))
        return self.emit(op, BOOL, (a, b))

    @staticmethod
    def _known(op, a, b):
        """Result of a comparison that bounds decide."""
        if a.high < b.low and op in ("lt", "le", "ne", "gt", "ge", "eq"):
            return constant(BOOL, op in ("lt", "le", "ne"))
        if a.low > b.high:
            return constant(BOOL, op in ("gt", "ge", "ne"))
        return None

    def cast(self, value: Value, type: str) -> Value:
        """Value converted as C and NumPy do."""
        if value.type == type:
            return value
        if value.is_constant:
            number = value.value
            if type in INTEGERS and value.type in (F32, F64):
                number = math.trunc(number) if math.isfinite(number) else 0
            return constant(type, number)
        if type == BOOL:
            return self.binary("ne", value.type, value, constant(value.type, 0))
        if value.type in LONG and type in NARROW:
            return self._low_bits(value, type)
        if value.op == "cast" and type in LONG and value.args[0].type in (*INTEGERS, BOOL):
            inner = value.args[0]
            if fits(inner, value.type):  # it was not changed
                return self.cast(inner, type)
        is_exact = type in INTEGERS and value.type in (*INTEGERS, BOOL) and fits(value, type)
        return self.emit("cast", type, (value,), *((value.low, value.high) if is_exact else ()))

    def _low_bits(self, value, type):
        if value.op == "cast" and value.args[0].type in INTEGERS:
            return self.cast(value.args[0], type)
        is_exact = (value.low, value.high) if fits(value, type) else (None, None)
        if value.op in LOW_BITS or (value.op == "shl" and value.args[1].high < 32):
            args = [self.cast(arg, U32) for arg in value.args]
            low = self.emit(value.op, U32, tuple(args))
            return low if type == U32 else self.emit("cast", type, (low,), *is_exact)
        if value.op == "shr" and value.args[1].is_constant and value.args[1].value == 32:
            product = value.args[0]
            if product.op == "mul" and all(fits(arg, U32) for arg in product.args):
                return self.emit("mulhi", U32, tuple(self.cast(a, U32) for a in product.args))
        return self.emit("cast", type, (value,), *is_exact)

    def select(self, condition: Value, if_true: Value, if_false: Value) -> Value:
        if condition.is_constant:
            return if_true if condition.value else if_false
        if if_true is if_false:
            return if_true
        args, ends = (condition, if_true, if_false), (None, None)
        if if_true.type in INTEGERS:
            ends = min(if_true.low, if_false.low), max(if_true.high, if_false.high)
        return self.emit("select", if_true.type, args, *ends)

    def float_bits(self, value: Value) -> Value:
        if value.is_constant:
            return constant(U32, int(np.float32(value.value).view(np.uint32)))
        if value.op == "bits_to_float":
            return value.args[0]
        if self.rounds and id(value) in self.rounded:
            inner, unit = self.rounded[id(value)]
            count = self.binary("mul", F32, inner, constant(F32, 1 / unit))
            number = self.cast(self.emit("round", F32, (count,)), I32)
            start = self.float_bits(constant(F32, 1.5 * 2**23 * unit))
            return self.binary("add", U32, self.cast(number, U32), start)
        return self.emit("float_to_bits", U32, (value,))

    def bits_to_float(self, value: Value) -> Value:
        if value.is_constant:
            return Value("const", F32, (np.uint32(value.value).view(np.float32),))
        if value.op == "float_to_bits":
            return value.args[0]
        return self.emit("bits_to_float", F32, (value,))

    def unary(self, op: str, value: Value) -> Value:
        """The result of neg, invert, lnot, abs or a function of FUNCTIONS."""
        if value.is_constant and op in FOLDED:
            with np.errstate(all="ignore"):
                return constant(BOOL if op == "lnot" else value.type, FOLDED[op](value.value))
        if op == "neg" and value.type in INTEGERS:
            return self.binary("sub", value.type, constant(value.type, 0), value)
        if op == "abs" and value.type in INTEGERS:
            return self._magnitude(value)
        if op == "lnot":
            return self.emit(op, BOOL, (self.cast(value, BOOL),))
        return self.emit(op, value.type, (value,))


FUNCTIONS = (
    "sqrt", "exp", "log", "sin", "cos", "tan", "tanh", "floor", "ceil", "trunc", "exp2", "log2",
    "asin", "acos", "atan", "sinh", "cosh",
)  # fmt: skip
FOLDED = {
    "neg": operator.neg, "invert": lambda n: ~int(n), "lnot": operator.not_, "abs": abs,
    "sqrt": np.sqrt, "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "tanh": np.tanh, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "exp2": np.exp2,
    "log2": np.log2, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh,
    "cosh": np.cosh,
}  # fmt: skip
__all__ = ["FUNCTIONS", "U64", "Arithmetic", "constant"]
