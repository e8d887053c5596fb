"""Offsets of each ray's samples: running sums of the rays' numbers of samples.

Rays whose samples would not all fit get none, and so do those after the first of them.
"""

import numpy as np

from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.threads import barrier, shared_array, thread_index
from numbanet.cuda.launch.types import Address, UInt
from numbanet.device import device, uint32_view
from numbanet.kernel_cache import compile_cached
from numbanet.storage.views import uint32_vector
from numbanet.target import AbstractTarget
from numbanet.volumes.launch import kernel_on

THREADS, EACH = 256, 16  # of the one block, and rays that a thread adds up by itself
ROOM = 2 * THREADS
NOTHING, LAST = np.uint32(0), np.uint32(THREADS - 1)
MOST = np.uint32(0xFFFFFFFF)


@device
def plus(a, b):
    """Saturating sum, so that sums of many rays do not wrap."""
    total = a + b
    return MOST if total < a else total


@device
def place(i, n, first, counts, capacity, ranges, total):
    """Write the range of ray i's samples, counts[i] of them; `first` are those before."""
    wanted = counts[i]
    stop = plus(first, wanted)
    fits = stop <= capacity
    ranges[2 * i] = first
    ranges[2 * i + 1] = wanted if fits else NOTHING
    if i == NOTHING and not fits:
        total[0] = NOTHING
    is_last = i == n - 1
    if fits and (is_last or plus(stop, counts[min(i + 1, n - 1)]) > capacity):
        total[0] = stop
    if is_last:
        total[1] = stop


@compile_cached
def pack_on_host(n, counts, capacity, ranges, total):
    first = NOTHING
    for i in range(n):
        place(np.uint32(i), n, first, counts, capacity, ranges, total)
        first = plus(first, counts[i])


def pack_in_block(n: UInt, pcounts: Address, capacity: UInt, pranges: Address, ptotal: Address):
    counts, ranges = uint32_vector(pcounts, n), uint32_vector(pranges, 2 * n)
    total = uint32_vector(ptotal, 2)
    sums = uint32_view(shared_array(ROOM))
    me, before = thread_index(), NOTHING
    for start in range(NOTHING, n, THREADS * EACH):
        mine, here = np.uint32(start) + me * EACH, NOTHING
        for k in range(EACH):
            if mine + k < n:
                here = plus(here, counts[mine + k])
        sums[me] = here
        barrier()
        side, distance = NOTHING, np.uint32(1)
        while distance < THREADS:  # each time over twice as many threads
            value = sums[side * THREADS + me]
            if me >= distance:
                value = plus(value, sums[side * THREADS + me - distance])
            side = 1 - side
            sums[side * THREADS + me] = value
            distance *= 2
            barrier()
        first = before
        if me > NOTHING:
            first = plus(before, sums[side * THREADS + me - 1])
        before = plus(before, sums[side * THREADS + LAST])
        for k in range(EACH):
            if mine + k < n:
                place(mine + k, n, first, counts, capacity, ranges, total)
                first = plus(first, counts[mine + k])
        barrier()


def pack(target: AbstractTarget, counts, capacity: int, ranges, total) -> None:
    """Write `ranges` [n, 2] (first sample, number of samples) from the rays' numbers of samples.

    Args:
        counts: uint32 [n], n > 0.
        capacity: largest number of samples.
        total: receives how many have a place, and how many were asked for, or 2^32 - 1 where
            that is less; uint32 [2].
    """
    n = counts.shape[0]
    if isinstance(target, CpuTarget):
        pack_on_host(np.uint32(n), counts, np.uint32(capacity), ranges.reshape(-1), total)
        return
    with target.device.lock:
        run = kernel_on(target.device, pack_in_block, THREADS)
        run(1, n, counts.address, capacity, ranges.address, total.address)
