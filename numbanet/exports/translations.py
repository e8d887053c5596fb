"""Translations of functions that are no device functions: Python's, NumPy's, and the vocabulary's.

Each takes the tracer, Numba's signature of the call and the arguments.
"""

import math

import numpy as np
from numba.core import types

from numbanet import device
from numbanet.exports.arithmetic import FUNCTIONS, constant
from numbanet.exports.program import F32, I32, I64, U32, Value
from numbanet.exports.views import TYPES, Range, Untranslatable, View, scalar_type
from numbanet.storage import access


def conversion(tracer, signature, value):
    if not isinstance(value, Value):
        raise Untranslatable("a conversion of anything but a number")
    return tracer.cast(value, scalar_type(signature.return_type))


def to_bool(tracer, signature, value):
    return tracer.truth(value)


def make_range(tracer, signature, *ends):
    kind = TYPES[signature.return_type.dtype]
    ends = [tracer.cast(each, kind) for each in ends]
    zero, one = constant(kind, 0), constant(kind, 1)
    start, stop, *step = (zero, *ends) if len(ends) == 1 else ends
    return Range(start, stop, step[0] if step else one)


def make_slice(tracer, signature, *ends):
    start, stop, *step = (None, *ends) if len(ends) == 1 else ends
    return slice(start, stop, *step)


def extreme(op):
    def apply(tracer, signature, *values):
        if len(values) == 1:
            (values,) = values
        kind = scalar_type(signature.return_type)
        result = tracer.cast(values[0], kind)
        for value in values[1:]:
            result = tracer.binary(op, kind, result, tracer.cast(value, kind))
        return result

    return apply


def absolute(tracer, signature, value):
    return tracer.unary("abs", value)


def length(tracer, signature, value):
    return value.length if isinstance(value, View) else constant(I64, len(value))


def function(op):
    def apply(tracer, signature, value):
        kind = scalar_type(signature.return_type)
        return tracer.cast(tracer.unary(op, tracer.cast(value, F32)), kind)

    return apply


def power(tracer, signature, a, b):
    return tracer.binary("pow", F32, tracer.cast(a, F32), tracer.cast(b, F32))


def local_array(tracer, signature, n):
    return tracer.new_array(int(n.value))


def calls(tracer, signature, n, body, *arguments):
    kinds = signature.args[2].types
    for k in range(int(n.value)):
        found = (types.intp, *map(types.unliteral, kinds))
        tracer.call(body.py_func, found, (constant(I64, k), *arguments))


def same(tracer, signature, value, *others):
    return value


def floor_to_int(tracer, signature, value):
    return tracer.cast(tracer.unary("floor", value), I32)


def uint32_view(tracer, signature, view):
    return view._replace(type=U32)


def float_bits(tracer, signature, value):
    return tracer.float_bits(value)


def float_from_bits(tracer, signature, bits):
    return tracer.bits_to_float(tracer.cast(bits, U32))


def select(tracer, signature, condition, if_true, if_false):
    kind = scalar_type(signature.return_type)
    both = tracer.cast(if_true, kind), tracer.cast(if_false, kind)
    return tracer.select(tracer.truth(condition), *both)


def bound(comparison):
    """Limit where x exceeds it; NaN where x is NaN."""

    def apply(tracer, signature, x, limit):
        is_beyond = tracer.binary(comparison, F32, x, limit)
        return tracer.select(is_beyond, limit, x)

    return apply


def multiply_add(tracer, signature, target, i, weight, source, j, n):
    for k in range(int(n.value)):
        number = constant(I64, k)
        to = tracer.binary("add", I64, tracer.cast(i, I64), number)
        start = tracer.binary("add", I64, tracer.cast(j, I64), number)
        product = tracer.binary("mul", F32, weight, tracer.load(source, start))
        tracer.store(target, to, tracer.binary("add", F32, tracer.load(target, to), product))


def load(tracer, signature, view, i):
    return tracer.load(view, i)


def load_pair(tracer, signature, view, i):
    one = constant(i.type, 1)
    return tracer.load(view, i), tracer.load(view, tracer.binary("add", i.type, i, one))


def store(tracer, signature, view, i, value):
    tracer.store(view, i, value)


def store_pair(tracer, signature, view, i, low, high):
    tracer.store(view, i, low)
    tracer.store(view, tracer.binary("add", i.type, i, constant(i.type, 1)), high)


def is_nan(tracer, signature, value):
    return tracer.binary("ne", F32, value, value)


NUMBERS = (
    np.float32, np.float64, np.int32, np.uint32, np.int64, np.uint64, np.intp, np.uintp, int, float,
)  # fmt: skip
TRANSLATIONS = {
    **dict.fromkeys(NUMBERS, conversion),
    bool: to_bool,
    range: make_range,
    slice: make_slice,
    len: length,
    tuple: same,
    min: extreme("min"), np.minimum: extreme("min"),
    max: extreme("max"), np.maximum: extreme("max"),
    abs: absolute, np.abs: absolute, np.fabs: absolute, math.fabs: absolute,
    pow: power, math.pow: power, np.power: power,
    math.isnan: is_nan, np.isnan: is_nan,
    **{getattr(math, name): function(name) for name in FUNCTIONS if hasattr(math, name)},
    **{getattr(np, name): function(name) for name in FUNCTIONS if hasattr(np, name)},
    np.arcsin: function("asin"), np.arccos: function("acos"), np.arctan: function("atan"),
    device.local_array: local_array,
    device.unrolled: calls, device.vectorized: calls,
    device.opaque: same, device.in_register: same,
    device.floor_to_int: floor_to_int,
    device.uint32_view: uint32_view,
    device.float_bits: float_bits,
    device.float_from_bits: float_from_bits,
    device.select: select,
    device.at_least: bound("lt"), device.at_most: bound("gt"),
    device.multiply_add: multiply_add,
    device.nothing: lambda *arguments: None,
    access.load: load, access.load_pair: load_pair,
    access.store: store, access.store_pair: store_pair,
}  # fmt: skip
