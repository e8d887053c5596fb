"""CUDA kernels on flat vectors: copies of the parameters in another precision, and fills."""

from functools import cache

from numbanet.cuda.launch.threads import n_threads, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ZERO
from numbanet.storage.access import load, reduce_one, store
from numbanet.storage.halves import TO_PAIR
from numbanet.storage.memory_access import load_four_floats, store_two_words
from numbanet.storage.views import VECTORS, float_vector


@cache
def convert_kernel(precision: str):
    """(x, y, n, first): y = x, rounded from float32 to the precision.

    A thread converts four numbers; `first`, below 4, is the place of one that lies at 16 bytes in x
    and at 8 in y.
    """
    vector, to_pair = VECTORS[precision], TO_PAIR[precision]

    def convert(px: Address, py: Address, n: UInt, first: UInt):
        x, y, k = float_vector(px, n), vector(py, n), thread_number()
        i = first + 4 * k
        if i + 4 <= n:
            four = load_four_floats(x, i)
            store_two_words(y, i, to_pair(four[0], four[1]), to_pair(four[2], four[3]))
        else:
            while i < n:
                store(y, i, x[i])
                i += 1
        if k < min(first, n):
            store(y, k, x[k])

    return convert


@cache
def collect_kernel(precision: str):
    """(x, factor, y, n): y += factor * x, and x is zeroed."""
    vector = VECTORS[precision]

    def collect(px: Address, factor: Float, py: Address, n: UInt):
        x, y, i = vector(px, n), float_vector(py, n), thread_number()
        if i < n:
            reduce_one(y, i, factor * load(x, i))
            store(x, i, ZERO)

    return collect


@cache
def fill_kernel(precision: str):
    """(x, value, n): x = value."""
    vector = VECTORS[precision]

    def fill(px: Address, value: Float, n: UInt):
        x, i = vector(px, n), thread_number()
        while i < n:
            store(x, i, value)
            i += n_threads()

    return fill


def fill_columns_kernel(px: Address, value: Float, n_rows: UInt, n_columns: UInt, pitch: UInt):
    """(x, value, n_rows, n_columns, pitch): the first columns of rows of float32 = value."""
    x, k = float_vector(px, pitch), thread_number()
    if k < n_rows * n_columns:
        x[k // n_columns * pitch + k % n_columns] = value
