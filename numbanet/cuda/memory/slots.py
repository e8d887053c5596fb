"""Sums of several blocks, one after the other in memory, added up in the order of their numbers.

What one number is the sum of does not depend on which block comes first, as it does where blocks
add to the same place.
"""

from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import WARP, barrier, block_index, shared_array, thread_index
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.memory.rooms import Rooms
from numbanet.device import ZERO, device, select
from numbanet.storage.views import FLOAT_BYTES, float_vector

# Blocks that share the samples of a pass, for each that a multiprocessor runs at a time: as many on
# every GPU, so that sums are made of the same parts.
BLOCKS = 128
N_WARPS = 16  # of a block that adds up, each of which has every 16th slot of 32 numbers
N_THREADS = WARP * N_WARPS
AT_ONCE = 8  # loads of a thread that is waiting for memory
LANES, N_SUMS = np.uint32(WARP), np.uint32(N_WARPS)


@device
def slot_address(address, number, size):  # of that slot, of so many float32
    return np.uint64(address + np.uint64(4) * np.uint64(number) * np.uint64(size))


def add_slots(pslots: Address, n_slots: UInt, n: UInt, pgradients: Address):
    """(slots, n_slots, n, gradients): add slots [n_slots, n] to n gradients."""
    slots, gradients = float_vector(pslots, n), float_vector(pgradients, n)
    sums = shared_array(N_THREADS)
    lane, warp = np.uint32(thread_index() % LANES), np.uint32(thread_index() // LANES)
    k = np.uint32(block_index() * LANES + lane)
    here, total, s = min(k, np.uint32(n - np.uint32(1))), ZERO, warp
    while s < n_slots:
        for _ in range(AT_ONCE):
            row = np.uint64(min(s, np.uint32(n_slots - np.uint32(1)))) * np.uint64(n)
            total += select(s < n_slots, slots[row + np.uint64(here)], ZERO)
            s = np.uint32(s + N_SUMS)
    sums[thread_index()] = total
    barrier()
    if (warp == np.uint32(0)) & (k < n):
        total = ZERO
        for w in range(N_WARPS):
            total += sums[np.uint32(np.uint32(WARP * w) + lane)]
        gradients[k] += total


class Slots:
    """Room for the sums of blocks, and what adds them up.

    Args:
        device: a CudaDevice, or anything with its methods.
        rooms: memory.
    """

    def __init__(self, device: Any, rooms: Rooms):
        self._device, self._rooms = device, rooms

    @cached_property
    def _add(self) -> Kernel:
        return Kernel(self._device, add_slots, N_THREADS)

    def zeros(self, n_slots: int, n: int) -> int:
        """The address of n_slots rows of n float32, zeroed, for blocks to add to."""
        n_bytes = n_slots * n * FLOAT_BYTES
        address = self._rooms("slots", n_bytes)
        self._device.zero(address, n_bytes)
        return address

    def add_to(self, gradients: int, n_slots: int, n: int) -> None:
        """Add all rows to n float32 at an address."""
        if n_slots:
            slots = self._rooms("slots", n_slots * n * FLOAT_BYTES)
            self._add(-(-n // WARP), slots, n_slots, n, gradients)
