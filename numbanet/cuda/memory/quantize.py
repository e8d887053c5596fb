"""Quantized tables on CUDA: two kernels that write the values that other kernels read."""

from functools import cache
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import (
    WARP,
    barrier,
    block_index,
    block_index_y,
    shared_array,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.device import ZERO, device
from numbanet.quantization import FORMATS, Quantized
from numbanet.storage.access import store
from numbanet.storage.views import VECTORS, float_vector

N_BLOCKS = 64  # of a level, each with a partial sum of its magnitudes
N_THREADS = np.uint32(N_BLOCKS * BLOCK)


class Quantizer:
    """Kernels that overwrite the copy of quantized parameters.

    Args:
        keeps_memory: whether the memory of sums is kept, or allocated by each call.
    """

    def __init__(
        self, device: Any, precision: str, quantized: tuple[Quantized, ...], keeps_memory=True
    ):
        self._device, self._work = device, []
        for bits in sorted({level.bits for level in quantized}):
            ranges = tuple((each.first, each.end) for each in quantized if each.bits == bits)
            kernels = magnitudes_kernel(ranges, bits), quantize_kernel(ranges, bits, precision)
            grid = N_BLOCKS, len(ranges)
            kept = self._sums(grid) if keeps_memory else None
            self._work.append((grid, kept, *(Kernel(device, kernel) for kernel in kernels)))

    def _sums(self, grid: tuple[int, int]) -> DeviceArray:
        return empty((grid[0] * grid[1],), np.float32, self._device)

    def __call__(self, values: DeviceArray, copy: DeviceArray) -> None:
        """Queue the kernels for values in float32, and their copy in the kernels' precision."""
        for grid, kept, magnitudes, quantize in self._work:
            sums = self._sums(grid) if kept is None else kept
            magnitudes(grid, values.address, sums.address)
            quantize(grid, values.address, copy.address, sums.address)


@cache
def range_of(ranges: tuple[tuple[int, int], ...]):
    """Device function m -> the first parameter of level m, and the end."""
    ends = tuple((np.uint32(first), np.uint32(end)) for first, end in ranges)

    @device
    def range_of(m):
        return ends[m]

    return range_of


@cache
def magnitudes_kernel(ranges, bits: int):
    """(values, sums): block y is a level, of which each block writes a partial sum."""
    collect, range_of_level, n = FORMATS[bits].collect, range_of(ranges), ranges[-1][1]
    n_sums = len(ranges) * N_BLOCKS

    def magnitudes(pvalues: Address, psums: Address):
        values, sums = float_vector(pvalues, n), float_vector(psums, n_sums)
        of_threads, m, t = shared_array(BLOCK), block_index_y(), thread_index()
        first, end = range_of_level(m)
        i, total = first + thread_number(), ZERO
        while i < end:
            total = collect(total, values[i])
            i += N_THREADS
        of_threads[t] = total
        barrier()
        if t < WARP:
            for k in range(1, BLOCK // WARP):
                total = collect(total, of_threads[t + k * WARP])
            of_threads[t] = total
        barrier()
        if t == 0:
            for k in range(1, WARP):
                total = collect(total, of_threads[k])
            sums[m * N_BLOCKS + block_index()] = total

    return magnitudes


@cache
def quantize_kernel(ranges, bits: int, precision: str):
    """(values, copy, sums): copy = values of each level, quantized."""
    collect, scale_of, value = FORMATS[bits]
    range_of_level, n, vector = range_of(ranges), ranges[-1][1], VECTORS[precision]
    n_sums = len(ranges) * N_BLOCKS

    def quantize(pvalues: Address, pcopy: Address, psums: Address):
        values, sums = float_vector(pvalues, n), float_vector(psums, n_sums)
        copy, m, total = vector(pcopy, n), block_index_y(), ZERO
        first, end = range_of_level(m)
        for k in range(N_BLOCKS):
            total = collect(total, sums[m * N_BLOCKS + k])
        scale, i = scale_of(total, end - first), first + thread_number()
        while i < end:
            store(copy, i, value(values[i], scale))
            i += N_THREADS

    return quantize
