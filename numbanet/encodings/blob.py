"""Blob of OneBlob and its integral, and rows of bins of which at most three are not zero.

Such a row is six numbers, `taps`: three bins and the values there.
"""

import numpy as np

from numbanet.device import HALF, ONE, ZERO, device, select


@device
def blob(u):
    v = ONE - u * u
    return np.float32(15.0 / 16.0) * v * v


@device
def blob_slope(u):
    return np.float32(-15.0 / 4.0) * u * (ONE - u * u)


@device
def blob_integral(u):  # from -1 to u
    q = u * u
    return HALF + u * (
        np.float32(15.0 / 16.0) + q * (np.float32(3.0 / 16.0) * q - np.float32(0.625))
    )


# All bins are visited in order: zeros and three stores at computed places would be faster on the
# CPU (11 against 31 ns for two dimensions of 64 bins), but on CUDA the row would then live in local
# memory instead of registers. The loop ends at row.shape[0], not at a constant, because LLVM
# vectorises it then (16 bins: 44 against 106 ns); on CUDA the shape of a local array is constant.


@device
def spread_from(first, taps, factor, row):  # row = factor * the values of the taps, 0 elsewhere
    left_bin, middle_bin, right_bin, left, middle, right = taps
    left, middle, right = factor * left, factor * middle, factor * right
    for b in range(row.shape[0]):
        here = first + np.float32(b)
        value = select(here == left_bin, left, ZERO) + select(here == middle_bin, middle, ZERO)
        row[b] = value + select(here == right_bin, right, ZERO)


@device
def add_from(first, taps, row):  # as spread_from, added to the row
    left_bin, middle_bin, right_bin, left, middle, right = taps
    for b in range(row.shape[0]):
        here = first + np.float32(b)
        value = select(here == left_bin, left, ZERO) + select(here == middle_bin, middle, ZERO)
        row[b] += value + select(here == right_bin, right, ZERO)


@device
def spread(taps, factor, row):
    spread_from(ZERO, taps, factor, row)


@device
def gather_from(first, taps, row):  # the sum of the taps' values times row, from bin `first` on
    left_bin, middle_bin, right_bin, left, middle, right = taps
    total = ZERO
    for b in range(row.shape[0]):
        here = first + np.float32(b)
        value = select(here == left_bin, left, ZERO) + select(here == middle_bin, middle, ZERO)
        total += (value + select(here == right_bin, right, ZERO)) * row[b]
    return total


@device
def gather(taps, row):
    return gather_from(ZERO, taps, row)
