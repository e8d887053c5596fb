"""Device without a GPU: numbanet's host code runs unchanged, and kernels on the PTX emulator."""

import functools
import itertools
import threading

import numpy as np

from emulator.ptx import Counters, EmulatedMemory, Module
from numbanet.cuda.driver.compile_only import SHARED_KIB
from numbanet.cuda.errors import DeviceMemoryError
from numbanet.cuda.toolchain.compiler import compile_ptx

_numbers = itertools.count()


class Recording(threading.local):
    """Work that this thread captures as a graph; None while it captures none."""

    work = None


class EmulatedDevice:
    """Stand-in for CudaDevice. Every launch is checked for races in shared memory.

    Args:
        compute_capability: of the compiled kernels.
        racecheck: "global" to look for races in global memory too, None for none.
        capacity: bytes of memory.
    """

    name = "Emulated GPU"
    stream = 1
    dlpack_device = None  # its addresses mean nothing to other libraries
    n_multiprocessors = 4

    def __init__(self, compute_capability=(9, 0), racecheck="shared", capacity=1 << 28):
        self.compute_capability = compute_capability
        self.max_shared_bytes = 1024 * SHARED_KIB.get(compute_capability, 227)
        self.ordinal = next(_numbers)
        self.memory = EmulatedMemory(capacity)
        self.racecheck = racecheck
        self.counters = None  # set a dict to count: name of the kernel -> Counters
        self.order = None  # set a NumPy generator to draw the order of blocks and atomics
        self.launches = []  # names, in their order
        self.allocations = 0
        self.synchronizations = 0
        self.n_zeroed = 0  # pieces of memory
        self._built, self._modules = {}, {}
        self._recording = Recording()
        self.lock = threading.RLock()

    def __repr__(self):
        return f"<emulated:{self.ordinal}>"

    # Memory

    def allocate(self, n_bytes):
        if n_bytes == 0:
            return 0
        assert self._recording.work is None, "an allocation while a graph is captured"
        self.allocations += 1
        try:
            return self.memory.allocate(n_bytes)
        except Exception as error:
            raise DeviceMemoryError(f"{self!r}: {error}") from error

    def free(self, address):
        if address:
            self.memory.free(address)

    def memory_info(self):
        return self.memory.capacity, self.memory.capacity

    def zero(self, address, n_bytes):
        if self._recording.work is not None:
            self._recording.work.append(lambda: self.zero(address, n_bytes))
        elif n_bytes:
            self.n_zeroed += 1
            self.memory.view(address, np.uint8, n_bytes)[:] = 0

    def copy(self, target, source, n_bytes):
        if self._recording.work is not None:
            self._recording.work.append(lambda: self.copy(target, source, n_bytes))
        elif n_bytes:
            self._bytes(target, n_bytes)[:] = self._bytes(source, n_bytes)

    def zero_rows(self, address, pitch, n_bytes, n_rows):
        for k in range(n_rows):
            self.zero(address + k * pitch, n_bytes)

    def copy_rows(self, target, target_pitch, source, source_pitch, n_bytes, n_rows):
        for k in range(n_rows):
            self.copy(target + k * target_pitch, source + k * source_pitch, n_bytes)

    def copy_to_device(self, address, host):
        assert self._recording.work is None, "a copy from the host while a graph is captured"
        if host.nbytes:
            self._bytes(address, host.nbytes)[:] = host.reshape(-1).view(np.uint8)

    def copy_to_host(self, host, address):
        self.synchronize()
        if host.nbytes:
            host.reshape(-1).view(np.uint8)[:] = self._bytes(address, host.nbytes)

    def _bytes(self, address, n_bytes):
        return self.memory.view(address, np.uint8, n_bytes)

    def ordinal_of(self, address):
        return None

    # Order of work: everything is done when it is asked for

    def order(self, first, second):
        pass

    def synchronize(self):
        assert self._recording.work is None, "waiting while a graph is captured"
        self.synchronizations += 1

    def synchronize_all(self):
        self.synchronize()

    # Kernels

    def build(self, function, argument_types, block=None, max_registers=None):
        key = function, argument_types, block, max_registers
        if key not in self._built:
            ptx = compile_ptx(
                function, argument_types, self.compute_capability, max_registers, block
            )
            self._built[key] = ptx
            self._modules[ptx] = Module(ptx.text, self.memory)
        return self._built[key]

    def share_cache(self, kernel, n_blocks, shared_bytes):
        pass  # no cache to divide

    def capture(self, queue):
        """Graph of the queued work, with its present arguments."""
        self._recording.work = []
        try:
            queue()
            return self._recording.work
        finally:
            self._recording.work = None

    def in_parallel(self, *queues):
        for queue in reversed(queues):  # since nothing may depend on their order
            queue()

    def replay(self, graph):
        for work in graph:
            work()

    def launch(self, kernel, grid, block, shared_bytes, arguments):
        grid = (grid,) if isinstance(grid, int) else grid
        if 0 in grid:
            return
        values = [arguments[i] for i in range(len(arguments))]
        recording = self._recording.work
        if recording is not None:
            recording.append(lambda: self._run(kernel, grid, block, shared_bytes, values))
        else:
            self._run(kernel, grid, block, shared_bytes, values)

    def _run(self, kernel, grid, block, shared_bytes, values):
        self.launches.append(kernel.name)
        counters = None
        if self.counters is not None:
            counters = self.counters.setdefault(kernel.name, Counters())
        self._modules[kernel].launch(
            kernel.name,
            grid,
            block,
            values,
            shared_bytes,
            counters=counters,
            racecheck=self.racecheck,
            order=self.order,
        )


@functools.cache
def shared_device():
    """Device that most tests use, so that each kernel is parsed once."""
    return EmulatedDevice()
