"""Memory of the emulated device: a heap of allocations with guard gaps, at stable addresses."""

import bisect
from collections import deque
from typing import NamedTuple

import numpy as np

from emulator.ptx.dtypes import U8, U64
from emulator.ptx.errors import Misaligned, OutOfBounds, OutOfMemory, UseAfterFree

HEAP_START = 0x1000_0000_0000
WINDOWS = {"shared": 0x7E00_0000_0000, "local": 0x7F00_0000_0000}  # of generic addresses
ALIGNMENT = 256
GUARD_BYTES = 1 << 16
UNWRITTEN = 0xFF  # NaN in every float format


class Allocation:
    def __init__(self, address, heap_bytes):
        self.address = address
        self.bytes = heap_bytes
        self.n_bytes = heap_bytes.shape[0]
        self.end = address + self.n_bytes
        self._views = {}

    def view(self, dtype):
        """Array of all whole elements; the same object each time."""
        found = self._views.get(dtype)
        if found is None:
            whole = self.n_bytes - self.n_bytes % dtype.itemsize
            found = self._views[dtype] = self.bytes[:whole].view(dtype)
        return found


class _Known(NamedTuple):
    """Allocations by address, and the addresses alone."""

    starts: list
    allocations: list

    def with_(self, allocation):
        place = bisect.bisect(self.starts, allocation.address)
        return _Known(
            [*self.starts[:place], allocation.address, *self.starts[place:]],
            [*self.allocations[:place], allocation, *self.allocations[place:]],
        )

    def without(self, allocation):
        left = [each for each in self.allocations if each is not allocation]
        return _Known([each.address for each in left], left)


class EmulatedMemory:
    """Heap whose addresses ascend, and are reused only when it has no more.

    `capacity` is address space: memory is taken from the system where it is touched.
    """

    def __init__(self, capacity=1 << 30):
        self.capacity = capacity
        self.version = 0  # changes when a known address may have become invalid
        self._heap = np.zeros(capacity, U8)
        self._heap = self._heap[-self._heap.ctypes.data % ALIGNMENT :]
        self._views = {}
        self._next = HEAP_START
        self._known = _Known([], [])  # replaced as a whole: a finalizer may free at any time
        self._freed = deque(maxlen=1 << 12)  # (start, end)

    def allocate(self, n_bytes):
        """Address of `n_bytes` bytes of 0xFF, aligned to 256."""
        room = -(-max(n_bytes, 1) // ALIGNMENT) * ALIGNMENT + GUARD_BYTES
        address = self._next
        if address + room > HEAP_START + self._heap.shape[0]:
            address = self._gap(room, n_bytes)
        else:
            self._next = address + room
        start = address - HEAP_START
        allocation = Allocation(address, self._heap[start : start + n_bytes])
        allocation.bytes[:] = UNWRITTEN
        self._change(lambda known: known.with_(allocation))
        return address

    def _gap(self, room, n_bytes):
        end, used = HEAP_START, 0
        for allocation in self._known.allocations:
            if allocation.address - end >= room:
                return end
            end = allocation.end + GUARD_BYTES
            end = -(-end // ALIGNMENT) * ALIGNMENT
            used += allocation.n_bytes
        if HEAP_START + self._heap.shape[0] - end >= room:
            return end
        raise OutOfMemory(f"{n_bytes} bytes wanted, {used} of {self.capacity} in use")

    def free(self, address):
        allocation = self.find(address)
        if allocation is None or allocation.address != address:
            raise self._error(address, 1, "free of ")
        self._change(lambda known: known.without(allocation))
        self._freed.append((address, allocation.end))
        self.version += 1

    def view(self, address, dtype, shape):
        """The memory itself as an array; writing to it is a host-to-device copy."""
        dtype = np.dtype(dtype)
        n_elements = int(np.prod(shape))
        self.check(np.array([address], U64), n_elements * dtype.itemsize, dtype.itemsize)
        start = address - HEAP_START
        return self._heap[start : start + n_elements * dtype.itemsize].view(dtype).reshape(shape)

    def find(self, address):
        """Allocation that contains `address`, or None."""
        starts, allocations = self._known
        place = bisect.bisect(starts, address) - 1
        if place < 0 or address >= max(allocations[place].end, starts[place] + 1):
            return None
        return allocations[place]

    def _change(self, changed):
        while True:
            known = self._known
            replacement = changed(known)
            if self._known is known:  # no finalizer has freed since
                self._known = replacement
                return

    @property
    def extent(self):
        """Bytes from the first address to the last that was ever allocated."""
        return self._next - HEAP_START

    def granule_of(self, view, size):
        """Number of granules of `size` bytes before an array that `Allocation.view` gave."""
        return (view.ctypes.data - self._heap.ctypes.data) // size

    def whole(self, dtype):
        """Array of the whole heap; its first element lies at HEAP_START."""
        found = self._views.get(dtype)
        if found is None:
            n = self._heap.shape[0] // 256 * 256
            found = self._views[dtype] = self._heap[:n].view(dtype)
        return found

    def holds(self, addresses, n_bytes):
        """Whether each address is aligned and starts `n_bytes` of one allocation."""
        starts, allocations = self._known
        if not allocations:
            return False
        ends = np.array([allocation.end for allocation in allocations], U64)
        place = np.searchsorted(np.array(starts, U64), addresses, "right") - 1
        inside = (place >= 0) & (addresses + U64.type(n_bytes) <= ends[place])
        return bool((inside & (addresses % U64.type(n_bytes) == 0)).all())

    def check(self, addresses, n_bytes, alignment, who=None):
        """Raise unless each address starts `n_bytes` of one allocation. `who` names one of them."""
        for k, address in enumerate(addresses.tolist()):
            allocation = self.find(address)
            by = f" by {who(k)}" if who else ""
            if allocation is None or address + n_bytes > allocation.end:
                raise self._error(address, n_bytes, f"{n_bytes}-byte access to ", by)
            if address % alignment:
                message = f"{n_bytes}-byte access to global address {address:#x}{by}"
                raise Misaligned(f"{message}: not a multiple of {alignment}")

    def _error(self, address, n_bytes, what, by=""):
        message = f"{what}global address {address:#x}{by}"
        for start, end in list(self._freed):
            if start <= address < end:
                return UseAfterFree(f"{message}: {address - start} bytes into freed memory")
        starts, allocations = self._known
        place = bisect.bisect(starts, address) - 1
        notes = []
        if place >= 0:
            before = allocations[place]
            where = f"{before.n_bytes} bytes at {before.address:#x}"
            if address < before.end:
                notes.append(f"crosses the end of {where}")
            else:
                notes.append(f"{address - before.end} bytes past the end of {where}")
        if place + 1 < len(starts):
            notes.append(f"{starts[place + 1] - address} bytes before the next allocation")
        return OutOfBounds(f"{message}: {', '.join(notes) or 'nothing is allocated'}")


class BlockMemory:
    """Shared memory of the resident blocks, or local memory of their lanes; bytes never written
    are 0xFF."""

    def __init__(self, name, n_bytes, n_owners, lanes_per_owner):
        self.name, self.n_bytes, self.lanes_per_owner = name, n_bytes, lanes_per_owner
        self.stride = -(-n_bytes // 128) * 128
        storage = np.full(max(n_owners * self.stride, 128) + 128, UNWRITTEN, U8)
        self.bytes = storage[-storage.ctypes.data % 128 :][: storage.shape[0] - 128]
        self._views = {}

    def view(self, dtype):
        if dtype not in self._views:
            self._views[dtype] = self.bytes.view(dtype)
        return self._views[dtype]

    def first_element(self, machine, size):
        """First element of each active lane's owner, for elements of `size` bytes."""
        return machine.per_selection(
            (self.name, size),
            lambda: machine.active_lanes() // self.lanes_per_owner * (self.stride // size),
        )

    def fault(self, machine, where, n_bytes):
        outside = (where < 0) | (where + n_bytes > self.n_bytes)
        bad = outside if outside.any() else where & (n_bytes - 1) != 0
        k = int(np.flatnonzero(bad)[0])
        message = f"{n_bytes}-byte access to {self.name} address {int(where[k]):#x}"
        message = f"{message} by {machine.lane_name(k)}"
        if outside.any():
            raise OutOfBounds(f"{message}: {self.name} memory has {self.n_bytes} bytes")
        raise Misaligned(f"{message}: not a multiple of {n_bytes}")
