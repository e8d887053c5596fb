"""Constant values."""

import numpy as np

from numbanet.exports.program import BOOL, F32, F64, INTEGERS, RANGES, Value


def constant(type: str, number) -> Value:
    """Constant of that type; integers wrap."""
    if type == BOOL:
        number = bool(number)
    elif type == F32:
        with np.errstate(all="ignore"):
            number = np.float32(number)
    elif type == F64:
        number = float(number)
    else:
        low, high = RANGES[type]
        number = (int(number) - low) % (high - low + 1) + low
    is_integer = type in INTEGERS or type == BOOL
    return Value("const", type, (number,), *((int(number),) * 2 if is_integer else (None, None)))
