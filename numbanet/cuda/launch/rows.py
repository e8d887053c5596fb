"""Access to numbers of one sample in global memory: rows, and strided features."""

from functools import cache

import numpy as np

from numbanet.device import device, set_four, unrolled
from numbanet.storage.access import load, reduce_one, store
from numbanet.storage.memory_access import load_four_floats
from numbanet.storage.views import VECTORS, float_vector

MOST_ROWS = 1 << 18  # of one launch, so that places fit into 32 bits
FOUR = 4  # float32 that are read at a time, of 16 bytes


@cache
def read_row(n: int):
    """Device function (address, start, row): n float32 from number `start` on, a multiple of n."""
    n_fours, bytes_of_four = (n // FOUR if n % FOUR == 0 else 0), np.uint64(4 * FOUR)

    @device
    def read_four(k, numbers, start, row):
        i = 4 * k
        four = load_four_floats(numbers, start + i)
        set_four(row, i, four)

    @device
    def read_row(address, start, row):
        numbers = float_vector(address, n)
        if n_fours > 0 and address % bytes_of_four == np.uint64(0):
            unrolled(n_fours, read_four, numbers, start, row)
        else:
            for d in range(n):
                row[d] = numbers[start + d]

    return read_row


@cache
def read_features(n: int, storage: str):
    """Device function (address, start, step, features): n features, `step` numbers apart."""
    vector = VECTORS[storage]

    @device
    def read_features(address, start, step, features):
        numbers = vector(address, n)
        for k in range(n):
            features[k] = load(numbers, start + k * step)

    return read_features


@cache
def write_features(n: int, storage: str):
    """Device function (address, start, step, features), the inverse of read_features."""
    vector = VECTORS[storage]

    @device
    def write_features(address, start, step, features):
        numbers = vector(address, n)
        for k in range(n):
            store(numbers, start + k * step, features[k])

    return write_features


@cache
def add_to_row(n: int):
    """Device function (address, start, row, factor): add factor * row to n float32."""

    @device
    def add_to_row(address, start, row, factor):
        numbers = float_vector(address, n)
        for d in range(n):
            reduce_one(numbers, start + d, factor * row[d])

    return add_to_row
