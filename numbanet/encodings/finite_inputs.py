"""Handling of inputs that are not finite: the features are NaN, and so are a network's outputs.

An infinite input has no place in a grid and no sine. What an encoding itself makes of such inputs
depends on how a target rounds and compares.
"""

from functools import cache

import numpy as np

from numbanet.device import ZERO, device, exact, local_array, select, unrolled

NAN_PAIR, NO_BITS = np.uint32(0x7FFF7FFF), np.uint32(0)  # of halves, float16 or bfloat16


@exact
def add_nothing(d, x, total):  # fast-math would take 0 x for 0
    total[0] = x[d] * ZERO + total[0]


@cache
def zero_or_nan(n_dims: int):
    """Device function (x): 0, or NaN if one of n_dims inputs is infinite or NaN."""

    @device
    def zero_or_nan(x):
        total = local_array(1)
        total[0] = ZERO
        unrolled(n_dims, add_nothing, x, total)
        return total[0]

    return zero_or_nan


@exact
def is_nan(zero):
    return zero != zero


@device
def nan_bits(zero):
    """Bits that make two halves NaN if `zero` is, by `or`."""
    return select(is_nan(zero), NAN_PAIR, NO_BITS)


@exact
def spoil(zero, row):
    """Make all of a row NaN if `zero` is NaN."""
    for k in range(row.shape[0]):
        row[k] = row[k] + zero


@cache
def spoil_rows(n_dims: int, ranges: tuple[tuple[int, int], ...]):
    """Device function (xs, first, last, ys, row): spoil(...) for rows of xs and ys[row:].

    `ranges` are of columns, each with the first one and the last one + 1.
    """
    check = zero_or_nan(n_dims)

    @device
    def spoil_rows(xs, first, last, ys, row):
        for i in range(np.uintp(last - first)):
            zero = check(xs[np.uintp(first) + i])
            if is_nan(zero):
                for start, stop in ranges:
                    spoil(zero, ys[np.uintp(row) + i, start:stop])

    return spoil_rows
