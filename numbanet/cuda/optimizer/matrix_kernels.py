"""CUDA kernels behind operations.py, on float32 matrices in C order."""

import math
from collections.abc import Callable
from functools import cache, reduce

import numpy as np

from numbanet.cuda.launch.kernel import BLOCK
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    shared_array,
    thread_index,
    thread_number,
    warp_sum,
)
from numbanet.cuda.launch.types import Address, UInt
from numbanet.device import ONE, ZERO, device
from numbanet.storage.views import float_matrix, float_vector

N_WARPS = BLOCK // WARP
LEAST_SQUARE = np.float32(1e-36)  # of the length of a column


@cache
def product_kernel(transpose_a: bool, transpose_b: bool):
    """(a, b, c, n_rows, n_columns, depth): c = a b, a thread for each element."""

    def product(pa: Address, pb: Address, pc: Address, n_rows: UInt, n_columns: UInt, depth: UInt):
        a, b, c = float_vector(pa, depth), float_vector(pb, depth), float_vector(pc, n_rows)
        k = thread_number()
        if k < n_rows * n_columns:
            i, j, total = k // n_columns, k % n_columns, ZERO
            d = np.uint32(0)
            while d < depth:
                left = d * n_rows + i if transpose_a else i * depth + d
                right = j * depth + d if transpose_b else d * n_columns + j
                total += a[left] * b[right]
                d += 1
            c[k] = total

    return product


def norm_squared_kernel(px: Address, n: UInt, pout: Address):
    """(x, n, out): the sum of squares, by one block."""
    x, out, warps = float_vector(px, n), float_vector(pout, 1), shared_array(N_WARPS)
    i, total = thread_index(), ZERO
    while i < n:
        total += x[i] * x[i]
        i += BLOCK
    total = warp_sum(total)
    if thread_index() % WARP == 0:
        warps[thread_index() // WARP] = total
    barrier()
    if thread_index() == 0:
        total = ZERO
        for k in range(N_WARPS):
            total += warps[k]
        out[0] = total


def trace_kernel(px: Address, n: UInt, pout: Address):
    """(x, n, out): the sum of the diagonal, by one thread of the first warp after another."""
    x, out, i, total = float_vector(px, n), float_vector(pout, 1), thread_index(), ZERO
    if i >= WARP:
        return
    while i < n:
        total += x[i * n + i]
        i += WARP
    total = warp_sum(total)
    if thread_index() == 0:
        out[0] = total


def orthonormalize_kernel(px: Address, n: UInt):
    """(x, n): Gram-Schmidt, in place, by one block; a warp for each of the columns behind.

    A column that is left with nothing becomes one of zeros.
    """
    x, warp, lane = float_vector(px, n), thread_index() // WARP, thread_index() % WARP
    k = np.uint32(0)
    while k < n:
        total, i = ZERO, lane
        while i < n:  # all warps alike
            total += x[i * n + k] * x[i * n + k]
            i += WARP
        scale = ONE / math.sqrt(max(warp_sum(total), LEAST_SQUARE))
        barrier()
        if warp == 0:
            i = lane
            while i < n:
                x[i * n + k] = x[i * n + k] * scale
                i += WARP
        barrier()
        j = k + 1 + warp
        while j < n:
            total, i = ZERO, lane
            while i < n:
                total += x[i * n + k] * x[i * n + j]
                i += WARP
            total, i = warp_sum(total), lane
            while i < n:
                x[i * n + j] = x[i * n + j] - total * x[i * n + k]
                i += WARP
            j += N_WARPS
        barrier()
        k += 1


@cache
def apply_kernel(function: Callable, shapes: tuple[tuple[int, ...], ...]):
    """(addresses of the arrays): call function(i, j, *arrays) for each element of the first."""
    n_rows, n_columns = shapes[0]
    n_elements = n_rows * n_columns

    @device
    def with_all(i, j, addresses, *arrays):
        function(i, j, *arrays)

    call = reduce(with_array, enumerate(shapes), with_all)

    @device
    def apply(addresses):
        k = thread_number()
        if k < n_elements:
            call(k // n_columns, k % n_columns, addresses)

    def apply_1(p: Address):
        apply((p,))

    def apply_2(p: Address, q: Address):
        apply((p, q))

    def apply_3(p: Address, q: Address, r: Address):
        apply((p, q, r))

    def apply_4(p: Address, q: Address, r: Address, s: Address):
        apply((p, q, r, s))

    return (apply_1, apply_2, apply_3, apply_4)[len(shapes) - 1]  # kernels have no *arguments


def with_array(call, numbered):
    """Device function `call` with an array of this number and shape supplied."""
    number, shape = numbered
    n_rows, n_columns = shape if len(shape) == 2 else (0, shape[0])
    is_matrix = len(shape) == 2

    @device
    def with_matrix(i, j, addresses, *arrays):
        call(i, j, addresses, float_matrix(addresses[number], n_rows, n_columns), *arrays)

    @device
    def with_vector(i, j, addresses, *arrays):
        call(i, j, addresses, float_vector(addresses[number], n_columns), *arrays)

    return with_matrix if is_matrix else with_vector
