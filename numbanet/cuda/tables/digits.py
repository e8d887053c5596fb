"""Exact sums of tables that fit shared memory, for gradients of features in any precision.

A number is some digits of some bits each, the last one rounded to the nearest. A block adds up one
digit of one level in shared memory, as int32, for a slice of the batch; the digits of a sum are put
together as int64. So nothing is lost of what integer_sums.py keeps, and nothing depends on the
order, without 64-bit additions to global memory.
"""

from functools import cache, cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    block_index,
    block_index_y,
    blocks_per_grid,
    n_threads,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.rooms import Rooms
from numbanet.cuda.tables.largest import raise_shared_word
from numbanet.cuda.tables.plan import JOBS, TablePlan
from numbanet.cuda.tables.radix import Digits, digit_of
from numbanet.cuda.tables.resident import N_THREADS, Source, add_slice, clear_table
from numbanet.cuda.tables.units import (
    EXPONENT_OF_NAN,
    MAGNITUDE,
    exponent_above,
    largest_exponent,
    largest_of_warp,
    power,
    unit_of,
)
from numbanet.device import ZERO, device, float_bits, float_from_bits, unrolled
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.parts import Part
from numbanet.storage.access import load
from numbanet.storage.memory_access import add_shared_int32
from numbanet.storage.views import VECTORS, float_vector, uint32_vector
from numbanet.tiles.instructions import load_word, shared_memory, store_word, store_word_to

LOOKING = 64  # blocks that look for the largest gradient of a feature, at most
SLICE = 1 << 16  # samples of a slice where blocks run in several rounds
LARGEST_BYTES = 16  # before those of warps
WARPS = np.uint32(BLOCK // WARP)  # of a block that looks


@device
def is_first_lane():
    return thread_index() % WARP == 0


@device
def largest_of_words(pwords, n, shared):
    """Largest of n words, found by all threads of a block with a word of shared memory."""
    words, k, largest = uint32_vector(pwords, n), thread_index(), np.uint32(0)
    while k < n:
        largest = max(largest, words[k])
        k += N_THREADS
    largest = largest_of_warp(largest)
    if thread_index() == 0:
        store_word(shared, np.uint32(0))
    barrier()
    if is_first_lane():
        raise_shared_word(shared, largest)
    barrier()
    largest = load_word(shared)
    barrier()
    return largest


@cache
def digits_source(plan: TablePlan, storage: str, digits: Digits):
    """Source of features as numbers; where = (address, column, two steps), how = (scale, digit)."""
    n, vector, n_ends = plan.resident_features, VECTORS[storage], plan.grid.n_ends
    digit_of_value = digit_of(digits)

    @device
    def read(where, i, words):
        address, column, sample_step, feature_step = where
        numbers, start = vector(address, 1), np.uint64(i) * np.uint64(sample_step)
        for f in range(n):
            row = np.uint64(column + np.uint32(f)) * np.uint64(feature_step)
            words[f] = float_bits(load(numbers, start + row))

    @device
    def unpack(words, how, g):
        for f in range(n):
            g[f] = how[0] * float_from_bits(words[f])

    @device
    def salt(i, how):
        return how[1]

    @device
    def add_feature(f, low, high, left, right, digit):
        place = np.uint32(4 * f)
        add_shared_int32(low + place, digit_of_value(left[f], digit))
        if n_ends == 2:
            add_shared_int32(high + place, digit_of_value(right[f], digit))

    @device
    def add(table, low, high, left, right, digit):
        low = table + low * n * 4
        high = table + high * n * 4
        unrolled(n, add_feature, low, high, left, right, digit)

    return Source(n, read, unpack, salt, add)


@cache
def largest_kernel(storage: str):
    """(dl_dy, n, two steps, largest): write the size of the largest number of a feature (block y),
    among n samples, that each warp has seen.
    """
    vector = VECTORS[storage]

    def largest_gradient(
        pdl_dy: Address, n: UInt, sample_step: UInt, feature_step: UInt, plargest: Address
    ):
        numbers, i, largest = vector(pdl_dy, n), thread_number(), np.uint32(0)
        row = np.uint64(block_index_y()) * np.uint64(feature_step)
        while i < n:
            value = load(numbers, row + np.uint64(i) * np.uint64(sample_step))
            largest = max(largest, np.uint32(float_bits(value) & MAGNITUDE))
            i += n_threads()
        largest = largest_of_warp(largest)
        if is_first_lane():
            warps = blocks_per_grid() * WARPS
            mine = block_index_y() * warps + thread_number() // WARP
            uint32_vector(plargest, warps)[mine] = largest

    largest_gradient.__qualname__ = f"largest_gradient_{storage}"
    return largest_gradient


@cache
def digits_kernel(plan: TablePlan, n_columns: int, storage: str, digits: Digits):
    """(x, n, number of the first sample, n_all, dl_dy, two steps, largest, n_words, sums).

    Adds up a digit of a job (block y) for a slice of the batch (block x). The first block writes
    the largest of the n_words at `largest` before them.
    """
    n_jobs, n_mine, n_features = len(plan.residents), plan.resident_features, plan.n_features
    columns = tuple(np.uint32(job.level * n_features + job.first_feature) for job in plan.residents)
    sizes = tuple(np.uint32(job.size * n_mine) for job in plan.residents)
    places = tuple(np.uint32(job.first_sum + job.first_feature) for job in plan.residents)
    stride = np.uint64(plan.n_resident_sums)
    add = add_slice(plan, n_columns, digits_source(plan, storage, digits))
    n_digits, bits = np.uint64(digits.n), np.int32(digits.bits)

    def add_digits(
        px: Address, n: UInt, before: UInt, n_all: UInt, pdl_dy: Address, sample_step: UInt,
        feature_step: UInt, plargest: Address, n_words: UInt, psums: Address,
    ):  # fmt: skip
        job, digit = block_index_y() % n_jobs, block_index_y() // n_jobs
        table, size, slice_ = shared_memory(), sizes[job], block_index()
        largest = largest_of_words(plargest + np.uint64(LARGEST_BYTES), n_words, table)
        if thread_index() + slice_ + block_index_y() == 0:
            store_word_to(plargest, largest)
        clear_table(table, size)
        n_slice = (n + blocks_per_grid() - 1) // blocks_per_grid()
        i = slice_ * n_slice
        end = min(n, i + n_slice)
        i += thread_index()
        e = exponent_above(largest)
        scale = power(np.int32(bits - e)) if e < EXPONENT_OF_NAN else ZERO
        where, how = (pdl_dy, columns[job], sample_step, feature_step), (scale, digit)
        barrier()
        add(job, i, end, (before, n_all), float_vector(px, n), where, how, table)
        barrier()
        row = np.uint64(slice_) * n_digits + np.uint64(digit)
        first = row * stride + np.uint64(places[job])
        sums, k = uint32_vector(np.uint64(psums + np.uint64(4) * first), size), thread_index()
        while k < size:
            sums[k // n_mine * n_features + k % n_mine] = load_word(table + k * 4)
            k += N_THREADS

    add_digits.__qualname__ = f"add_digits_{storage}"
    return add_digits


@cache
def collect_kernel(digits: Digits):
    """(sums, n_slices, n, largest, factor, gradients): add factor times n sums to float32."""
    n_digits, bits, exponent_of = digits.n, digits.bits, largest_exponent(1)

    def collect_digits(
        psums: Address, n_slices: UInt, n: UInt, plargest: Address, factor: Float,
        pgradients: Address,
    ):  # fmt: skip
        k = thread_number()
        if k < n:
            sums, gradients, total = (
                uint32_vector(psums, n),
                float_vector(pgradients, n),
                np.int64(0),
            )
            for s in range(n_slices):
                for digit in range(n_digits):
                    row = np.uint64(s) * np.uint64(n_digits) + np.uint64(digit)
                    word = np.int32(sums[row * np.uint64(n) + np.uint64(k)])
                    total += np.int64(word) << np.int64(bits * (n_digits - 1 - digit))
            unit = unit_of(exponent_of(plargest, np.uint32(0)), np.int32(n_digits * bits))
            gradients[k] += factor * (unit * np.float32(total))

    return collect_digits


class DigitSums:
    """Sums of the gradients of a grid's parameters, if all levels fit shared memory.

    Args:
        device: a CudaDevice, or anything with its methods.
        rooms: memory.
        grid: the component.
        n_columns: of a row of inputs.
        storage: of the features' gradients.
        digits: how these are written.
    """

    def __init__(
        self, device: Any, rooms: Rooms, grid: Any, n_columns: int, storage: str, digits: Digits
    ):
        self._device, self._rooms, self._grid = device, rooms, grid
        self._n_columns, self._storage, self._digits = n_columns, storage, digits
        self._plan = TablePlan(Part(grid), device.max_shared_bytes)

    @staticmethod
    def serves(device: Any, encoding: AbstractEncoding) -> bool:
        return encoding.has_edges and not TablePlan(Part(encoding), device.max_shared_bytes).binned

    def _n_slices(self, n: int) -> int:
        """Slices of n samples: enough for all multiprocessors, and for no sum to overflow.

        More of them, where multiprocessors are left over: so these run blocks of the next round.
        """
        n_blocks = self._digits.n * len(self._plan.residents)
        n_additions = n * self._grid.n_corners
        in_rounds = n // SLICE if JOBS % n_blocks else 1
        return max(JOBS // n_blocks, -(-n_additions >> self._digits.log2_most), in_rounds, 1)

    @cached_property
    def _find_largest(self) -> Kernel:
        return Kernel(self._device, largest_kernel(self._storage))

    @cached_property
    def _add(self) -> Kernel:
        what = self._plan, self._n_columns, self._storage, self._digits
        return Kernel(self._device, digits_kernel(*what), N_THREADS, self._plan.resident_bytes)

    @cached_property
    def _collect(self) -> Kernel:
        return Kernel(self._device, collect_kernel(self._digits))

    def __call__(self, n: int, of_batch: tuple, gradients: int) -> None:
        """See IntegerSums.__call__."""
        x, _, before, n_all, _, dl_dy, *steps, _, factor = of_batch
        n_slices, n_sums = self._n_slices(n), self._plan.n_resident_sums
        blocks = min(-(-n // BLOCK), LOOKING), self._grid.n_outputs
        n_words = blocks[0] * blocks[1] * int(WARPS)
        largest = self._rooms("largest", LARGEST_BYTES + 4 * n_words)
        sums = self._rooms("digits", 4 * n_slices * self._digits.n * n_sums)
        self._find_largest(blocks, dl_dy, n, *steps, largest + LARGEST_BYTES)
        grid = n_slices, self._digits.n * len(self._plan.residents)
        self._add(grid, x, n, before, n_all, dl_dy, *steps, largest, n_words, sums)
        self._collect.over(n_sums, sums, n_slices, n_sums, largest, factor, gradients)
