"""Memory of one GPU: allocated from a pool of the driver, cached, copied."""

import gc

import numpy as np

from numbanet.cuda.driver.calls import checked
from numbanet.cuda.driver.context import DriverContext
from numbanet.cuda.driver.spare_memory import SpareMemory
from numbanet.cuda.errors import DeviceMemoryError


class DeviceMemory(DriverContext):
    """Memory by addresses; freed memory is reused only behind the queued work."""

    def __init__(self, handle, ordinal: int):
        super().__init__(handle, ordinal)
        self._pool = self._create_pool(handle)
        self._spare = SpareMemory()
        self._frees = []  # addresses to free after the capture that is under way

    def _create_pool(self, handle):
        """Create a pool that keeps freed memory; None where the driver has none."""
        driver = self._driver
        attribute = driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED
        if not checked(driver.cuDeviceGetAttribute(attribute, handle)):
            return None
        properties = driver.CUmemPoolProps()
        properties.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        properties.location.id = self.ordinal
        pool = self._call("cuMemPoolCreate", properties)
        threshold = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        self._call("cuMemPoolSetAttribute", pool, threshold, driver.cuuint64_t(2**64 - 1))
        return pool

    def allocate(self, n_bytes: int) -> int:
        """Address of new memory, uninitialised, aligned to 256 bytes; 0 for no bytes.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        if n_bytes == 0:
            return 0
        size = self._spare.size(n_bytes)
        address = self._spare.take(size)
        if address is None:
            address = self._allocate(size)
            self._spare.lend(address, size)
        return address

    def _allocate(self, n_bytes: int) -> int:
        try:
            return self._take(n_bytes)
        except DeviceMemoryError:
            self.synchronize()
        gc.collect()  # garbage may hold memory
        self.trim()  # freed pieces may have become one
        free, total = (f"{amount / 2**20:,.0f} MiB" for amount in self.memory_info())
        wanted = f"{n_bytes / 2**20:,.1f} MiB"
        doing = f"{self!r}: no {wanted} of memory, {free} of {total} are free"
        try:
            return self._take(n_bytes, doing)
        except DeviceMemoryError:
            self.trim()  # the pool may have grown as far as it could, and others need memory too
            raise

    def trim(self) -> None:
        """Return unused memory to the GPU."""
        for address in self._spare.clear():
            self._give_back(address)
        if self._pool is not None:
            self._call("cuMemPoolTrimTo", self._pool, 0)

    def _take(self, n_bytes: int, doing: str = "") -> int:
        if self._pool is None:
            return int(self._call("cuMemAlloc", n_bytes, doing=doing))
        arguments = n_bytes, self._pool, self._stream
        return int(self._call("cuMemAllocFromPoolAsync", *arguments, doing=doing))

    def free(self, address: int) -> None:
        """Free memory, once the queued work is done with it."""
        if address == 0:
            return
        if self._is_capturing:
            self._frees.append(address)
        elif not self._spare.keep(address):
            self._give_back(address)

    def _give_back(self, address: int) -> None:
        """Return memory to the driver; errors are not raised, as they have been reported before."""
        entered = self._enter()
        if self._pool is None:
            self._driver.cuMemFree(address)
        else:
            self._driver.cuMemFreeAsync(address, self._stream)
        if entered:
            self._leave()

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of memory."""
        return self._call("cuMemGetInfo")

    def zero(self, address: int, n_bytes: int) -> None:
        if n_bytes:
            self._call("cuMemsetD8Async", address, 0, n_bytes, self._stream)

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        """Copy within this GPU, or from another one."""
        if n_bytes:
            self._call("cuMemcpyAsync", target, source, n_bytes, self._stream)

    def zero_rows(self, address: int, pitch: int, n_bytes: int, n_rows: int) -> None:
        if n_bytes and n_rows:
            self._call("cuMemsetD2D8Async", address, pitch, 0, n_bytes, n_rows, self._stream)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, n_bytes: int,
        n_rows: int,
    ) -> None:  # fmt: skip
        if not (n_bytes and n_rows):
            return
        copy = self._driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = copy.dstMemoryType = self._driver.CUmemorytype.CU_MEMORYTYPE_DEVICE
        copy.srcDevice, copy.srcPitch = source, source_pitch
        copy.dstDevice, copy.dstPitch = target, target_pitch
        copy.WidthInBytes, copy.Height = n_bytes, n_rows
        self._call("cuMemcpy2DAsync", copy, self._stream)

    def copy_to_device(self, address: int, host: np.ndarray) -> None:
        """Copy an array in C order; it may be changed as soon as this returns."""
        if host.nbytes:
            source = host.ctypes.data
            self._call("cuMemcpyHtoDAsync", address, source, host.nbytes, self._stream)
            if self._attribute_of(source, "MEMORY_TYPE") is not None:  # page-locked, so not staged
                self.synchronize()

    def copy_to_host(self, host: np.ndarray, address: int) -> None:
        """Fill an array in C order, after waiting for the queued work."""
        if self._patience is not None:
            self.synchronize()  # for the copy itself waits as long as it takes
        if host.nbytes:
            self._call("cuMemcpyDtoHAsync", host.ctypes.data, address, host.nbytes, self._stream)
        self.synchronize()

    def ordinal_of(self, address: int) -> int | None:
        """Number of the GPU that memory belongs to; None for the host's."""
        return self._attribute_of(address, "DEVICE_ORDINAL")

    def _attribute_of(self, address: int, name: str):
        which = getattr(self._driver.CUpointer_attribute, f"CU_POINTER_ATTRIBUTE_{name}")
        error, value = self._driver.cuPointerGetAttribute(which, address)
        return None if error else value  # memory that the driver does not know is an error
