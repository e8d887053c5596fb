"""Arrays on a device, and their exchange with other libraries.

Both protocols, `__cuda_array_interface__` and DLPack, hand over memory without a copy and say which
stream has to wait for which.
"""

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.cuda.memory import dlpack


class Memory:
    """Memory on a device, freed with this object."""

    def __init__(self, device, n_bytes: int):
        self.n_bytes, self.address = n_bytes, 0
        self._free = device.free
        self.address = device.allocate(n_bytes)

    def __del__(self, process_ends=sys.is_finalizing):
        if not process_ends():  # which frees all
            self._free(self.address)


@dataclass(init=False, frozen=True, eq=False, repr=False)
class DeviceArray:
    """Array in C order on a device; `owner` keeps its memory alive.

    The device is a CudaDevice, or anything with its methods.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    address: int
    owner: object
    device: Any

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, address: int, owner, device):
        # A third of the time that a frozen dataclass takes to set its fields.
        vars(self).update(shape=shape, dtype=dtype, address=address, owner=owner, device=device)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> "DeviceArray":
        """Row, or slice of neighbouring rows, that shares the memory."""
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                raise IndexError("slices of an array on a device have step 1; copy it with numpy()")
            shape = (max(stop - start, 0), *self.shape[1:])
        elif isinstance(rows, (int, np.integer)):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"row {rows} of an array with {len(self)} rows")
            start, shape = int(rows) % len(self), self.shape[1:]
        else:
            raise TypeError("an array on a device takes a row or a slice; copy it with numpy()")
        offset = start * math.prod(self.shape[1:]) * self.dtype.itemsize
        return DeviceArray(shape, self.dtype, self.address + offset, self.owner, self.device)

    def reshape(self, *shape: int) -> "DeviceArray":
        """Same memory with another shape."""
        if math.prod(shape) != self.size:
            raise ValueError(f"an array of shape {list(self.shape)} cannot become {list(shape)}")
        return DeviceArray(shape, self.dtype, self.address, self.owner, self.device)

    def numpy(self) -> np.ndarray:
        """Copy on the host, after waiting for the queued kernels."""
        host = np.empty(self.shape, self.dtype)
        self.device.copy_to_host(host, self.address)
        return host

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on a device cannot become a NumPy array without a copy")
        return self.numpy().astype(dtype or self.dtype, copy=False)

    def __float__(self) -> float:
        return float(self.numpy().item())

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype}, device={self.device!r})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.device.dlpack_device is None:
            raise AttributeError("other libraries cannot see the memory of this device")
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "stream": self.device.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        if self.device.dlpack_device is None:
            raise BufferError("other libraries cannot see the memory of this device")
        return self.device.dlpack_device

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        """Capsule for another library, whose stream waits for the work queued so far."""
        here = self.__dlpack_device__()
        if dl_device is not None and tuple(dl_device) != here:
            if copy is False or tuple(dl_device) != (1, 0):
                raise BufferError(
                    f"the array lies on {self.device!r}; it is copied to the host only"
                )
            return self.numpy().__dlpack__()
        if copy:
            return copied(self).__dlpack__(stream=stream)
        if stream != -1:  # the consumer does not order its work itself
            self.device.order(self.device.stream, stream or 0)
        return dlpack.export(
            self.address, self.shape, self.dtype, here, lambda: self._returned(stream)
        )

    def _returned(self, stream: int | None) -> None:
        """Wait, before the memory is reused, for another library's stream that may use it."""
        if (stream or self.device.stream) != self.device.stream:
            self.device.synchronize_all()


def empty(shape: tuple[int, ...], dtype, device) -> DeviceArray:
    """Uninitialised array on a device.

    Raises:
        DeviceMemoryError: there is not enough memory.
    """
    dtype = np.dtype(dtype)
    memory = Memory(device, math.prod(shape) * dtype.itemsize)
    return DeviceArray(tuple(shape), dtype, memory.address, memory, device)


def zeros(shape: tuple[int, ...], dtype, device) -> DeviceArray:
    array = empty(shape, dtype, device)
    device.zero(array.address, array.nbytes)
    return array


def to_device(host: np.ndarray, device) -> DeviceArray:
    """Copy of a NumPy array on a device."""
    host = np.ascontiguousarray(host).reshape(host.shape)
    array = empty(host.shape, host.dtype, device)
    device.copy_to_device(array.address, host)
    return array


def copied(array: DeviceArray) -> DeviceArray:
    """Copy on the same device."""
    copy = empty(array.shape, array.dtype, array.device)
    array.device.copy(copy.address, array.address, array.nbytes)
    return copy


def address_of(array: DeviceArray | None) -> int:
    """Address of the first element; 0, for kernels, where there is no array."""
    return 0 if array is None else array.address
