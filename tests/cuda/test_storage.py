"""Reading and writing parameters in each precision: on the CPU, and as PTX on the emulator."""

import functools

import numpy as np
import pytest
from numba import njit

from numbanet.storage.access import load, load_pair, reduce_one, reduce_pair, store, store_pair
from numbanet.storage.views import VECTORS, float_matrix, float_vector

F = np.float32
SPECIAL = [0, -0.0, 1, -1, 1.0009765, 65504, 65520, 1e-7, 3e38, np.inf, -np.inf, np.nan, 1.00390625]


def to_bfloat16(x):
    """The nearest number with 8 significant bits, ties to even, as the bits of a bfloat16."""
    with np.errstate(invalid="ignore", over="ignore"):
        mantissa, exponent = np.frexp(x.astype(np.float64))
        nearest = np.ldexp(np.rint(256 * mantissa), exponent - 8).astype(F)
    return np.where(np.isnan(x), 0x7FFF, nearest.view(np.uint32) >> 16).astype(np.uint16)


def stored(x, storage):
    x = np.asarray(x, F)
    if storage == "bfloat16":
        return to_bfloat16(x)
    with np.errstate(over="ignore"):
        return x.astype(storage)


def loaded(array, storage):
    if storage == "bfloat16":
        return (array.astype(np.uint32) << 16).view(F)
    return array.astype(F)


@functools.cache
def emulated(kernel, types, capability):
    pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")
    from emulator.ptx import EmulatedMemory, Module
    from numbanet.cuda.toolchain.compiler import compile_ptx

    ptx = compile_ptx(kernel, types, capability)
    return Module(ptx.text, EmulatedMemory()), ptx.name


def run(kernel, capability, n_threads, *arguments):
    """Launch with arrays and integers; arrays are copied there and back."""
    types = tuple("uint64" if isinstance(a, np.ndarray) else "int32" for a in arguments)
    module, name = emulated(kernel, types, capability)
    memory, raw, copies = module.memory, [], []
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            address = memory.allocate(argument.nbytes)
            there = memory.view(address, argument.dtype, argument.size)
            there[:] = argument
            copies.append((address, there, argument))
        raw.append(address if isinstance(argument, np.ndarray) else argument)
    try:
        module.launch(name, -(-n_threads // 32), 32, raw)
    finally:
        for address, there, argument in copies:
            argument[:] = there
            memory.free(address)


@functools.cache
def conversions(storage):
    from numba import cuda

    vector = VECTORS[storage]

    def convert(px, pone, ppair, pback, pback_pair, n):
        x, back, back_pair = (
            float_vector(px, n),
            float_vector(pback, n),
            float_vector(pback_pair, n),
        )
        one, pair = vector(pone, n), vector(ppair, n)
        i = np.uint32(2 * cuda.grid(1))
        if i < np.uint32(n):
            for k in range(2):
                store(one, i + np.uint32(k), x[i + np.uint32(k)])
                back[i + np.uint32(k)] = load(one, i + np.uint32(k))
            store_pair(pair, i, x[i], x[i + np.uint32(1)])
            back_pair[i], back_pair[i + np.uint32(1)] = load_pair(pair, i)

    return convert


@functools.cache
def reductions(storage):
    from numba import cuda

    vector = VECTORS[storage]

    def reduce(pa, px, n, n_threads):
        a, x = vector(pa, n), float_vector(px, 2 * n_threads)
        t = np.uint32(cuda.grid(1))
        if t < np.uint32(n_threads):
            i = np.uint32(2) * (t % np.uint32(n // 2))
            reduce_pair(a, i, x[2 * t], x[2 * t + 1])
            reduce_one(a, i + (t & np.uint32(1)), x[2 * t])
            reduce_one(a, np.uint32(n - 1), F(1))

    return reduce


def element(storage):
    return np.dtype("uint16" if storage == "bfloat16" else storage)


@pytest.mark.parametrize("storage", VECTORS)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)])
def test_conversions_round_to_the_nearest(storage, capability):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 1000, np.uint32)
    bits[: bits.size // 4] &= 0xFFFF8000  # ties between two bfloat16
    normal = rng.normal(size=1000) * np.exp2(rng.integers(-26, 17, 1000))
    x = np.concatenate([bits.view(F), normal.astype(F), np.array([*SPECIAL, 0], F)])
    x = x[: x.size // 2 * 2]
    x[(abs(x) < 1e-37) & (x != 0)] = 1  # subnormals may be flushed
    one, pair = (np.zeros(x.size, element(storage)) for _ in range(2))
    back, back_pair = np.zeros_like(x), np.zeros_like(x)
    run(conversions(storage), capability, x.size // 2, x, one, pair, back, back_pair, x.size)
    expected = loaded(stored(x, storage), storage)
    for result in (back, back_pair, loaded(one, storage), loaded(pair, storage)):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("storage", VECTORS)
@pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)])
def test_reductions_add_up(storage, capability):
    """Small integers, whose sums are exact in every precision and in every order."""
    n, n_threads = 32, 150
    rng = np.random.default_rng(1)
    x = rng.integers(-3, 4, 2 * n_threads).astype(F)
    start = rng.integers(-3, 4, n)
    a = stored(start, storage)
    run(reductions(storage), capability, n_threads, a, x, n, n_threads)
    expected = start.astype(F)
    t = np.arange(n_threads)
    i = 2 * (t % (n // 2))
    np.add.at(expected, i, x[::2])
    np.add.at(expected, i + 1, x[1::2])
    np.add.at(expected, i + (t & 1), x[::2])
    expected[n - 1] += n_threads
    np.testing.assert_array_equal(loaded(a, storage), expected)


def test_rows_of_a_matrix():
    pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")
    from numba import cuda

    def row_sums(px, py, n_rows, n_columns):
        x, y = float_matrix(px, n_rows, n_columns), float_matrix(py, n_rows, 1)
        i = np.uint32(cuda.grid(1))
        if i < np.uint32(n_rows):
            row, total = x[i], F(0)
            for j in range(n_columns):
                total += load(row, np.uint32(j))
            y[i, np.uint32(0)] = total

    x = np.arange(7 * 5)
    sums = np.zeros(7, F)
    run(row_sums, (9, 0), 7, stored(x, "float32"), sums, 7, 5)
    np.testing.assert_array_equal(sums, x.reshape(7, 5).sum(axis=1))


@njit
def on_the_cpu(a, n):
    for i in range(0, n, 2):
        low, high = load_pair(a, i)
        store(a, i, load(a, i) + low)
        if low > 0:
            reduce_pair(a, i, high, low)
            reduce_one(a, i, high)
        else:
            store_pair(a, i, high, low)


def test_the_cpu_does_the_same_as_python():
    a = np.random.default_rng(0).normal(size=20).astype(F)
    expected = a.copy()
    on_the_cpu(a, a.size)
    on_the_cpu.py_func(expected, expected.size)
    np.testing.assert_array_equal(a, expected)
