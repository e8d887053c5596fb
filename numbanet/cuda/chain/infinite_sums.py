"""Sums of float32 by tensor cores that are not finite, computed anew by multiply-adds.

An infinity has no parts: its smaller one is NaN, and so are all sums that it enters, where a
multiply-add may give an infinity. The same goes for numbers that overflow when they are rounded.
"""

from functools import cache

import numpy as np

from numbanet.cuda.chain.float_block import Places
from numbanet.cuda.chain.tensor_block import Operand, set_zero, warp_position
from numbanet.device import ZERO, device, exact, local_array, unrolled
from numbanet.encodings.finite_inputs import is_nan
from numbanet.storage.views import float_vector

CHAINS = 4  # additions that do not wait for each other
ONE = np.uint32(1)


@exact
def add_nothing(k, sums, totals):  # fast-math would take 0 x for 0
    totals[k % CHAINS] = sums[k] * ZERO + totals[k % CHAINS]


@exact
def total_of(totals):
    return (totals[0] + totals[1]) + (totals[2] + totals[3])


@exact
def add_product(j, n_columns, a, b, sums):
    row, column = j // n_columns, j % n_columns
    tile = row // 2 * (n_columns // 2) + column // 2
    k = 4 * tile + 2 * (row % 2) + column % 2
    sums[k] = a[row] * b[column] + sums[k]


@cache
def fetch(operand: Operand):
    """Device function (k, source, first, depth, to): to[k] is the lane's k-th number at a depth.

    The source is a tuple of an address, the pitch, and the end of the rows or columns.
    """
    step, along_depth = Places(operand).step(), operand.along_depth

    @device
    def fetch(k, source, first, depth, to):
        address, pitch, end = source
        side = np.uint32(first + step(k))
        to[k] = ZERO
        if side < end:
            i = side * pitch + depth if along_depth else depth * pitch + side
            to[k] = float_vector(address, i + ONE)[i]

    return fetch


@cache
def renew_infinite(left: Operand, right: Operand):
    """Device function (a, b, depths, sums): compute a lane's sums anew if one is not finite.

    The arguments are those of tensor_product.
    """
    rows, columns = Places(left), Places(right)
    first_row, first_column, position = rows.first(), columns.first(), warp_position(right.size)
    fetch_row, fetch_column = fetch(left), fetch(right)
    n_rows, n_columns = rows.n, columns.n
    n_sums = n_rows * n_columns

    @device
    def multiply(a, b, depths, sums):
        a_address, a_pitch, row, a_end = a
        b_address, b_pitch, column, b_end = b
        depth, end = depths
        warp_row, warp_column = position()
        row, column = row + warp_row + first_row(), column + warp_column + first_column()
        of_rows, of_columns = local_array(n_rows), local_array(n_columns)
        unrolled(n_sums, set_zero, sums)
        a_source, b_source = (a_address, a_pitch, a_end), (b_address, b_pitch, b_end)
        while depth < end:
            unrolled(n_rows, fetch_row, a_source, row, depth, of_rows)
            unrolled(n_columns, fetch_column, b_source, column, depth, of_columns)
            unrolled(n_sums, add_product, n_columns, of_rows, of_columns, sums)
            depth += ONE

    @device
    def renew_infinite(a, b, depths, sums):
        totals = local_array(CHAINS)
        unrolled(CHAINS, set_zero, totals)
        unrolled(n_sums, add_nothing, sums, totals)
        if is_nan(total_of(totals)):
            multiply(a, b, depths, sums)

    return renew_infinite
