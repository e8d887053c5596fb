"""Device with a copy of everything for each of many models, which looks like that of one.

Code for a device with one model works on it unchanged: memory is allocated, zeroed and
copied for all models, and each kernel is launched once for all of them. Addresses are those of the
first model.
"""

from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.cuda.driver.arguments import Arguments, pack
from numbanet.cuda.launch.types import Address
from numbanet.cuda.many.lifted import lifted, lifted_types
from numbanet.cuda.memory.arrays import DeviceArray

ALIGNMENT = 256  # bytes between the models' pieces of memory, as a device aligns its own
LENT = 1 << 60  # addresses from here on stand for memory that others allocated
MOST_LENT = 64  # pieces of it that are remembered
MOST_BLOCKS_Z = 65535  # of a grid
ROUND_COST = 1 / 8  # of blocks that run at a time, where a model alone on a multiprocessor takes 1


@dataclass(frozen=True)
class Region:
    """Memory of the first model; the next one's lies `stride` bytes behind it, or is the same."""

    first: int
    n_bytes: int
    address: int
    stride: int


@dataclass(frozen=True)
class ManyKernel:
    """Kernel of the device below, and the packing of its arguments."""

    name: str
    kernel: Any
    argument_types: tuple[str, ...]
    arguments: Arguments


class ManyDevice:
    """Device of n models, which looks like that of one: memory, kernels and graphs of all at once.

    Args:
        device: a CudaDevice, or anything with its methods, that has the memory of all models.
        n: number of models.
    """

    dlpack_device = None  # no other library knows these addresses

    def __init__(self, device: Any, n: int):
        self.below, self.lock, self.n_models = device, device.lock, n
        self.n_multiprocessors = blocks_of_each(device.n_multiprocessors, n)
        self._regions, self._firsts = {}, ()
        self._lent, self._next = {}, LENT

    def __repr__(self) -> str:
        return f"<{self.n_models} models on {self.below!r}>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.below, name)

    # Memory

    def allocate(self, n_bytes: int) -> int:
        """Allocate n_bytes for each model; 0 for no bytes."""
        if n_bytes == 0:
            return 0
        stride = -(-n_bytes // ALIGNMENT) * ALIGNMENT
        address = self.below.allocate(stride * self.n_models)
        self._know(Region(address, stride, address, stride))
        return address

    def free(self, address: int) -> None:
        if address:
            self._forget(address)
            self.below.free(address)

    def _know(self, region: Region) -> None:
        self._regions[region.first] = region
        self._firsts = tuple(sorted(self._regions))

    def _forget(self, first: int) -> None:
        del self._regions[first]
        self._firsts = tuple(sorted(self._regions))

    def lend(self, array: DeviceArray) -> DeviceArray:
        """Lend an array of the device below, [1 or n_models, ...], as the array of a model.

        The memory is the lender's to keep.
        """
        shape = array.shape[1:]
        n_bytes = array.nbytes // len(array)
        stride = n_bytes if len(array) == self.n_models else 0
        key = array.address, stride, shape
        found = self._lent.get(key)
        if found is None:
            first, self._next = self._next, self._next + max(n_bytes, 1)
            self._know(Region(first, max(n_bytes, 1), array.address, stride))
            if len(self._lent) == MOST_LENT:
                oldest = self._lent.pop(next(iter(self._lent)))
                self._forget(oldest.address)
            found = self._lent[key] = DeviceArray(shape, array.dtype, first, None, self)
        return found

    def place(self, address: int) -> tuple[int, int]:
        """Address below of an address of the first model, and the stride to the next model."""
        firsts = self._firsts
        k = bisect(firsts, address) - 1
        region = self._regions.get(firsts[k]) if k >= 0 else None
        if region is None or address >= region.first + region.n_bytes:
            return address, 0
        return address - region.first + region.address, region.stride

    def zero(self, address: int, n_bytes: int) -> None:
        if n_bytes:
            there, stride = self.place(address)
            self.below.zero_rows(there, stride, n_bytes, self.n_models)

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        if n_bytes:
            places = *self.place(target), *self.place(source)
            self.below.copy_rows(*places, n_bytes, self.n_models)

    def copy_to_device(self, address: int, host: np.ndarray) -> None:
        """Copy the same numbers to all models."""
        self.write(address, np.broadcast_to(host, (self.n_models, *host.shape)))

    def write(self, address: int, values: np.ndarray) -> None:
        """Write numbers of its own to each model, [n_models, ...]."""
        values = np.ascontiguousarray(values)
        if values.nbytes == 0:
            return
        there, stride = self.place(address)
        n_bytes = values.nbytes // self.n_models
        staged = self.below.allocate(values.nbytes)
        try:
            self.below.copy_to_device(staged, values)
            self.below.copy_rows(there, stride, staged, n_bytes, n_bytes, self.n_models)
        finally:
            self.below.free(staged)

    def copy_to_host(self, host: np.ndarray, address: int) -> None:
        """Copy the first model's numbers."""
        self.below.copy_to_host(host, self.place(address)[0])

    def read(self, address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Numbers of all models, [n_models, *shape], after waiting for the queued work."""
        host = np.empty((self.n_models, *shape), dtype)
        if host.nbytes == 0:
            return host
        staged = self.below.allocate(host.nbytes)
        try:
            self.collect(staged, address, host.nbytes // self.n_models)
            self.below.copy_to_host(host, staged)
        finally:
            self.below.free(staged)
        return host

    def collect(self, target: int, address: int, n_bytes: int) -> None:
        """Copy n_bytes of each model to memory of the device below, side by side."""
        places = target, n_bytes, *self.place(address)
        self.below.copy_rows(*places, n_bytes, self.n_models)

    def array_of(self, array: DeviceArray, k: int) -> DeviceArray:
        """The part of model k, as an array of the device below."""
        there, stride = self.place(array.address)
        return DeviceArray(array.shape, array.dtype, there + k * stride, array.owner, self.below)

    # Kernels

    def build(
        self, function: Callable, argument_types: tuple[str, ...], block: int | None = None,
        max_registers: int | None = None,
    ) -> ManyKernel:  # fmt: skip
        many, types = lifted(function, argument_types), lifted_types(argument_types)
        kernel = self.below.build(many, types, block, max_registers)
        return ManyKernel(kernel.name, kernel, argument_types, pack(types, [0] * len(types)))

    def share_cache(self, kernel: ManyKernel, n_blocks: int, shared_bytes: int) -> None:
        self.below.share_cache(kernel.kernel, n_blocks, shared_bytes)

    def launch(
        self, kernel: ManyKernel, grid: int | tuple, block: int | tuple, shared_bytes: int,
        arguments: Arguments,
    ) -> None:  # fmt: skip
        x, y, z = (grid, 1, 1) if isinstance(grid, int) else (*grid, 1, 1)[:3]
        if 0 in (x, y, z):
            return
        values, places, strides = [], [], []
        for k, name in enumerate(kernel.argument_types):
            value = arguments[k]
            if name == Address:
                value, stride = self.place(value)
                places.append(k)
                strides.append(stride)
            values.append(value)
        most = MOST_BLOCKS_Z // z
        for first in range(0, self.n_models, most):
            mine = list(values)
            for k, stride in zip(places, strides, strict=True):
                mine[k] += first * stride
            n = min(most, self.n_models - first)
            kernel.arguments.assign((*mine, *strides, z))
            self.below.launch(kernel.kernel, (x, y, z * n), block, shared_bytes, kernel.arguments)


def blocks_of_each(n_multiprocessors: int, n_models: int) -> int:
    """Number of multiprocessors for which a model's samples are divided, so that all are busy.

    Of few rounds, in each of which every multiprocessor runs a block, the last one may be short.
    """

    def cost(n):
        return -(-n_models * n // n_multiprocessors) * (1 / n + ROUND_COST)

    return min(range(1, n_multiprocessors + 1), key=cost)
