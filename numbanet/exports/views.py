"""Values of device functions beside scalars: parts of arrays and ranges."""

from typing import NamedTuple

from numba.core import types

from numbanet.exports.program import BOOL, F32, F64, I32, I64, U32, U64, Array, Value

TYPES = {
    types.float32: F32, types.float64: F64, types.int32: I32, types.uint32: U32,
    types.int64: I64, types.uint64: U64, types.boolean: BOOL,
}  # fmt: skip


class NeedsConstant(Exception):
    """Signal that a loop must be unrolled, as its body needs a constant."""


class Untranslatable(Exception):
    """Error for code that has no translation; the caller knows its place."""


class View(NamedTuple):
    """Part of an array, or of the parameters (array None), read as numbers of a type."""

    array: Array | None
    first: Value
    length: Value
    type: str = F32


class Range(NamedTuple):
    start: Value
    stop: Value
    step: Value


def scalar_type(numba_type) -> str:
    """Type of a number in a program.

    Raises:
        Untranslatable: it has none.
    """
    numba_type = types.unliteral(numba_type)
    if numba_type not in TYPES:
        raise Untranslatable(f"numbers of type {numba_type}; use float32, int32 or uint32")
    return TYPES[numba_type]
