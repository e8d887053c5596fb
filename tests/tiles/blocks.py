"""One block of threads on the PTX emulator, with a known content of its shared memory."""

import functools

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from emulator.ptx import Counters, EmulatedMemory, Module
from numbanet.cuda.launch.threads import barrier, thread_index
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.storage.views import uint32_vector
from numbanet.tiles.instructions import load_word, shared_memory, store_word

WARP = 32
TYPES = ("uint64", "uint64", "uint32", "uint64", "uint64", "uint32")


@functools.cache
def compiled(body, n_threads, capability):
    """Module and name of a kernel that calls body(thread, shared, given, results)."""
    step = np.uint32(n_threads)

    def tile(pbefore, pafter, n_words, pgiven, presults, n):
        thread, shared = thread_index(), shared_memory()
        before, after = uint32_vector(pbefore, n_words), uint32_vector(pafter, n_words)
        k = thread
        while k < n_words:
            store_word(np.uint32(shared + np.uint32(4) * k), before[k])
            k = np.uint32(k + step)
        barrier()
        body(thread, shared, uint32_vector(pgiven, n), uint32_vector(presults, n))
        barrier()
        k = thread
        while k < n_words:
            after[k] = load_word(np.uint32(shared + np.uint32(4) * k))
            k = np.uint32(k + step)

    ptx = compile_ptx(tile, TYPES, capability, block=n_threads)
    return Module(ptx.text, EmulatedMemory()), ptx.name


class Block:
    """What a block has done: its shared memory and its results, as bytes, and the counters.

    Races and reads of what nobody wrote are errors.
    """

    def __init__(self, body, shared, given=(), n_results=0, n_threads=WARP, capability=(9, 0)):
        module, name = compiled(body, n_threads, capability)
        memory, self.counters = module.memory, Counters()
        n_words, n = shared.nbytes // 4, max(n_results * n_threads, 1)
        given = np.ascontiguousarray(given).reshape(-1).view(np.uint32)
        addresses = [memory.allocate(size) for size in (4 * n_words,) * 2]
        addresses += [memory.allocate(max(given.nbytes, 4)), memory.allocate(4 * n)]
        before, after, there, results = addresses
        memory.view(before, np.uint8, shared.nbytes)[:] = shared.view(np.uint8).reshape(-1)
        memory.view(there, np.uint32, given.size)[:] = given
        arguments = before, after, n_words, there, results, max(given.size, n)
        options = {"racecheck": "shared", "counters": self.counters}
        module.launch(name, 1, n_threads, arguments, shared.nbytes, **options)
        self.shared = memory.view(after, np.uint8, shared.nbytes).copy()
        self.results = memory.view(results, np.uint32, n).copy()[: n_results * n_threads]
        self.results = self.results.reshape(n_threads, n_results)
        for address in addresses:
            memory.free(address)

    def count(self, text):
        """How many instructions a warp issued whose opcode begins so."""
        return sum(n for opcode, n in self.counters.instructions.items() if opcode.startswith(text))


# Numbers as halves


def encode(x, precision):
    """The bits of the nearest halves, uint16."""
    x = np.ascontiguousarray(x, np.float32)
    if precision == "float16":
        return x.astype(np.float16).view(np.uint16)
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(bits, precision):
    """Bits of halves as float64."""
    if precision == "float16":
        return bits.view(np.float16).astype(np.float64)
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def whole_numbers(seed, *shape):
    """Small ones: products and sums of them are exact in every precision and order."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(np.float64)


# Fragments, as the PTX ISA draws them

LANE = np.arange(WARP)
G, T = LANE // 4, LANE % 4


def words_of(matrix, precision):
    """Words [32, 4 n] of lanes, of a matrix [16, 16 n]."""
    bits, words = encode(matrix, precision).astype(np.uint32), []
    for block in range(matrix.shape[1] // 16):
        for row, column in ((0, 0), (8, 0), (0, 8), (8, 8)):
            rows, columns = G + row, 16 * block + 2 * T + column
            words.append(bits[rows, columns] | bits[rows, columns + 1] << 16)
    return np.stack(words, axis=1)


def sums_of(matrix):
    """Sums [32, 8 n] of lanes, of a matrix [16, 16 n]: float32."""
    sums = []
    for block in range(matrix.shape[1] // 8):
        for row, column in ((0, 0), (0, 1), (8, 0), (8, 1)):
            sums.append(matrix[G + row, 8 * block + 2 * T + column])
    return np.stack(sums, axis=1).astype(np.float32)


class Rows:
    """A matrix of halves as rows of shared memory, each followed by bytes that nobody touches."""

    GUARD = 0xA5

    def __init__(self, matrix, precision, pitch):
        self.n_rows, self.width = matrix.shape
        self.precision, self.pitch = precision, pitch
        self.bytes = np.full((self.n_rows, pitch), self.GUARD, np.uint8)
        self.bytes[:, : 2 * self.width] = encode(matrix, precision).view(np.uint8)

    def read(self, memory):
        """The matrix in bytes of shared memory, after a check of what lies between its rows."""
        rows = memory[: self.bytes.size].reshape(self.bytes.shape)
        assert (rows[:, 2 * self.width :] == self.GUARD).all(), "wrote beside its rows"
        bits = np.ascontiguousarray(rows[:, : 2 * self.width]).view(np.uint16)
        return decode(bits, self.precision)
