"""Ceilings of the machine, measured with all cores by loops of our own and by np.matmul."""

import time

import numpy as np
from numba import get_num_threads, njit, prange

LEVEL_SIZE = 2**15
CHAIN = 32


@njit(fastmath=True, forceinline=True)
def multiply_add(x, a, b):
    return x * a + b


def twice(function):
    @njit(fastmath=True, forceinline=True)
    def both(x, a, b):
        return function(function(x, a, b), a, b)

    return both


chain = twice(twice(twice(twice(twice(multiply_add)))))


@njit(fastmath=True)
def multiply_adds(row, values, turn):
    factor = values[turn]
    for i in range(row.size):  # independent chains: vectorised, and enough of them in flight
        row[i] = chain(row[i], factor, np.float32(0.25))


@njit
def gathers(entries, table, turn):
    """Read pairs of features as one number of 8 bytes each."""
    total = np.uint64(0)
    for i in range(entries.size):
        total ^= table[entries[i] ^ turn]
    entries[0] ^= total & np.uint64(1)


@njit(fastmath=True)
def scatters(entries, table, turn):
    for i in range(entries.size):
        entry = entries[i] ^ turn
        table[entry, 0] += np.float32(1)
        table[entry, 1] += np.float32(1)


def on_all_cores(function):
    @njit(parallel=True)
    def run(first, second, n_repeats):
        for thread in prange(first.shape[0]):
            for repeat in range(n_repeats):
                function(first[thread], second[thread], repeat & 7)

    return run


@njit(parallel=True)
def copy(source, target):
    for i in prange(source.size):
        target[i] = source[i]


class Ceilings:
    """Measures the machine; the best of several calls is the ceiling."""

    def __init__(self):
        rng = np.random.default_rng(0)
        n_threads = get_num_threads()
        self.values = rng.random((n_threads, 4096), np.float32)
        self.square = rng.random((1536, 1536), np.float32)
        self.source = rng.random(2**25, np.float32)
        self.target = np.empty_like(self.source)
        self.entries = rng.integers(0, LEVEL_SIZE, (n_threads, 2**13), np.uint32)
        self.tables = rng.random((n_threads, LEVEL_SIZE, 2), np.float32)
        self.pairs = self.tables.view(np.uint64)[:, :, 0]
        functions = multiply_adds, gathers, scatters
        self.multiply_adds, self.gathers, self.scatters = map(on_all_cores, functions)
        self.measure()

    def measure(self):
        """Return rates by name, per second."""
        n_repeats = 500
        values, entries = self.values, self.entries
        amounts = {
            "multiply-adds": values.size * CHAIN * n_repeats,
            "multiply-adds of np.matmul": self.square.size * len(self.square),
            "copied bytes": 2 * self.source.nbytes,
            "gathers": entries.size * n_repeats,
            "scatters": entries.size * n_repeats,
        }
        times = (
            seconds(self.multiply_adds, values, values, n_repeats),
            seconds(np.matmul, self.square, self.square),
            seconds(copy, self.source, self.target),
            seconds(self.gathers, entries, self.pairs, n_repeats),
            seconds(self.scatters, entries, self.tables, n_repeats),
        )
        return {name: amounts[name] / time for name, time in zip(amounts, times, strict=True)}


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start
