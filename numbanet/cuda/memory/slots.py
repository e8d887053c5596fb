"""Partial sums of blocks, side by side in memory, added up in the order of the blocks' numbers.

The order of summation does not depend on which block comes first, as it does where blocks
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


def add_slots(pslots: Address, n_slots: UInt, n: UInt, pgradients: Address, accumulates: UInt):
    """(slots, n_slots, n, gradients, 1 to add to these): add slots [n_slots, n] up."""
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
        if accumulates != np.uint32(0):
            total += gradients[k]
        gradients[k] = total


class Slots:
    """Memory for the sums of blocks, and the kernel that adds them up.

    Args:
        device: a CudaDevice, or anything with its methods.
        rooms: memory.
    """

    def __init__(self, device: Any, rooms: Rooms):
        self._device, self._rooms = device, rooms
        self.waiting = None  # pending addition, or None: gradients, n_slots, n

    @cached_property
    def _add(self) -> Kernel:
        return Kernel(self._device, add_slots, N_THREADS)

    def rows(self, n_slots: int, n: int) -> int:
        """Address of n_slots rows of n float32, uninitialised, for blocks to write."""
        return self._rooms("slots", n_slots * n * FLOAT_BYTES)

    def zeros(self, n_slots: int, n: int) -> int:
        """Address of n_slots rows of n float32, zeroed, for blocks to add to."""
        address = self.rows(n_slots, n)
        self._device.zero(address, n_slots * n * FLOAT_BYTES)
        return address

    def add_waiting(self, adds: bool = True) -> None:
        """Add the pending sums, if any, to the gradients, or write them in their place."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self.add_to(*waiting, adds)

    def add_to(self, gradients: int, n_slots: int, n: int, adds: bool = True) -> None:
        """Add all rows to n float32 at an address, or write their sum there."""
        if n_slots:
            self.add_rows(self.rows(n_slots, n), n_slots, n, gradients, adds)

    def add_rows(self, rows: int, n_slots: int, n: int, gradients: int, adds: bool = True) -> None:
        """Add n_slots rows of n float32 to those at another address, or write their sum there."""
        self._add(-(-n // WARP), rows, n_slots, n, gradients, int(adds))
