"""Parameters and gradients on a CUDA device: in float32, and in the kernels' precision."""

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import DeviceArray, Memory, to_device
from numbanet.cuda.memory.parameter_kernels import collect_kernel, convert_kernel
from numbanet.cuda.memory.quantize import Quantizer
from numbanet.engine import Gradients
from numbanet.parameters import AbstractParameters
from numbanet.quantization import Quantized
from numbanet.storage.views import DTYPES, FLOAT_BYTES, ITEM_SIZES

ALIGNMENT = 16  # bytes: the widest access
ALL = slice(None)
ROOM = 1 << 12  # elements behind a vector, which parts of equal size may need, or pairs of halves


def address_before(array: DeviceArray, n: int) -> int:
    """Address n float32 before an array; it need not belong to any allocation."""
    return (array.address - n * FLOAT_BYTES) % 2**64


def aligned(
    device: Any, n: int, storage: str, boundary: int, allocate: Callable[..., Any] = Memory
) -> DeviceArray:
    """Uninitialised vector whose element `boundary`, the first one of the encoding, is aligned.

    There is room for ROOM elements more. `allocate` makes its memory of a device and a size.
    """
    item_size = ITEM_SIZES[storage]
    shift = -boundary * item_size % ALIGNMENT
    memory = allocate(device, shift + (n + ROOM) * item_size)
    dtype = np.dtype(DTYPES[storage])
    return DeviceArray((n,), dtype, memory.address + shift, memory, device)


class Converter:
    """Kernel that rounds vectors from float32 to the precision that kernels read.

    Args:
        device: a CudaDevice, or anything with its methods.
        precision: of the output.
        boundary: an element that is aligned, in input and output.
        quantized: elements that are written as their values in few bits.
        keeps_memory: see Quantizer.
    """

    def __init__(
        self, device: Any, precision: str, boundary: int, quantized: tuple[Quantized, ...] = (),
        keeps_memory: bool = True,
    ):  # fmt: skip
        self._device, self._precision, self._first = device, precision, boundary % 4
        self._quantize = Quantizer(device, precision, quantized, keeps_memory)

    @cached_property
    def _kernel(self) -> Kernel:
        return Kernel(self._device, convert_kernel(self._precision))

    def __call__(self, values: DeviceArray, to: DeviceArray) -> None:
        n = values.size
        if self._precision == "float32":
            self._device.copy(to.address, values.address, values.nbytes)
        else:
            self._kernel.over(n // 4 + 1, values.address, to.address, n, self._first)
        self._quantize(values, to)


class Lease:
    """Owner of memory that is lent to a user who may write to it."""

    def __init__(self, memory: Memory):
        self.memory = memory


class CudaParameters(AbstractParameters):
    """Master values in float32, and a copy in the precision that the kernels read.

    As long as somebody holds `array`, or a part of it, its values may change at any time: then the
    copy is made anew whenever the kernels are about to read it.

    Of several ranks each may keep a part of the master values, until all are asked for.

    Attributes:
        own: the master values that are here, float32.
        first: index of the parameter with which they begin.
        address: of the first parameter, or where it would be.
    """

    def __init__(
        self, device: Any, values: np.ndarray, n_matrix_params: int, precision: str,
        quantized: tuple[Quantized, ...] = (), allocate: Callable[..., Any] = Memory,
    ):  # fmt: skip
        self._device, self._precision, self._allocate = device, precision, allocate
        self._boundary, self.quantized = n_matrix_params, quantized
        self._share = None  # where only a part is here: copies each rank's part to all ranks
        self._set_own(aligned(device, values.size, "float32", n_matrix_params), 0)
        device.copy_to_device(self.address, np.ascontiguousarray(values, np.float32))
        self._lease = None
        self._is_stale = False
        self._convert = Converter(device, precision, n_matrix_params, quantized)
        self.copy = self.converted(self.own)

    def _set_own(self, own: DeviceArray, first: int) -> None:
        self.own, self.first, self.address = own, first, address_before(own, first)

    @property
    def is_divided(self) -> bool:
        return self._share is not None

    @property
    def is_held(self) -> bool:
        """Whether somebody may write to the values."""
        return self._lease is not None and self._lease() is not None

    @property
    def master(self) -> DeviceArray:
        """All values. Divided ones are gathered, for good: all ranks call it together."""
        self._become_whole()
        return self.own

    def _become_whole(self) -> None:
        if self.is_divided:
            with self._device.lock:
                whole, self._share = self._gathered(), None
                self._set_own(whole, 0)

    def _gathered(self) -> DeviceArray:
        if not self.is_divided:
            return self.own
        whole = aligned(self._device, self.copy.size, "float32", self._boundary)
        to = whole[self.first :]
        self._device.copy(to.address, self.own.address, self.own.nbytes)
        self._share(whole)
        return whole

    def keep_part(self, first: int, last: int, share: Callable[[DeviceArray], None]) -> None:
        """Keep the master values of [first, last) alone, if the kernels read a copy.

        Args:
            first: a multiple of 4.
            share: fills a vector of all values, of which each rank has written its part; all
                ranks call it together.
        """
        if self.copy is self.own or self.quantized:
            return
        self.address_for(first, last)
        self.current()
        part = aligned(self._device, last - first, "float32", self._boundary)
        source = address_before(self.own, self.first - first)
        self._device.copy(part.address, source, part.nbytes)
        self._set_own(part, first)
        self._share = share

    def address_for(self, first: int, last: int) -> int:
        """`address`, with [first, last) here: that part alone, or else all values."""
        if (self.first, self.own.size) != (first, last - first):
            self._become_whole()
        return self.address

    @property
    def array(self) -> DeviceArray:
        lease = self._lease and self._lease()
        if lease is None:
            lease = Lease(self.master.owner)
            self._lease = weakref.ref(lease)
        master = self.master
        return DeviceArray(master.shape, master.dtype, master.address, lease, self._device)

    def assign(self, values: DeviceArray) -> None:
        self._take(values)
        self.n_assigned += 1

    def _take(self, values: DeviceArray) -> None:
        source = address_before(values, -self.first)
        self._device.copy(self.own.address, source, self.own.nbytes)
        if self.is_divided:
            self._convert(self._aligned(values), self.copy)
        else:
            self._is_stale = True

    def from_host(self, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values, np.float32)
        if self.is_divided:
            self._take(to_device(values, self._device))
        else:
            self._device.copy_to_device(self.own.address, values)
            self._is_stale = True

    def to_host(self) -> np.ndarray:
        return self._gathered().numpy()

    def common(self) -> np.ndarray:
        return (self.copy if self.is_divided else self.own).numpy()

    def touch(self) -> None:
        """Mark the copy as stale, so that it is renewed before kernels or other ranks read it."""
        if self.is_divided:
            self._convert(self.own, self.copy[self.first :][: self.own.size])
        else:
            self._is_stale = True

    @property
    def are_current(self) -> bool:
        """Whether the kernels' copy needs no renewal, and nobody may write to the values."""
        return self._lease is None and not self._is_stale

    def current(self) -> DeviceArray:
        if self._lease is not None:
            self._is_stale = True
            if self._lease() is None:
                self._lease = None
        if self._is_stale:
            self.renew_copy()
        self._is_stale = False
        return self.copy

    def renew_copy(self, which: slice = ALL) -> None:
        """Update the kernels' copy from the master values, from a multiple of 4 on."""
        if self.quantized:
            self._convert(self.own, self.copy)
        elif self.copy is not self.own and self.own[which].size:
            self._convert(self.own[which], self.copy[which])

    def renew_copies_of_others(self, first: int, last: int) -> None:
        """Have the kernels read those that other ranks stepped; one wrote the own copies."""
        if self.quantized:  # of which a scale may be of parameters of several ranks
            self.renew_copy()
            return
        for others in (slice(0, first), slice(last, None)):
            self.renew_copy(others)

    def finish_step(self) -> None:
        """Quantize the copy, which a step has written too."""
        if self.quantized:
            self._convert(self.own, self.copy)

    def _aligned(self, values: DeviceArray) -> DeviceArray:
        if (values.address + self._boundary * FLOAT_BYTES) % ALIGNMENT == 0:
            return values
        copy = aligned(self._device, values.size, "float32", self._boundary)
        self._device.copy(copy.address, values.address, values.nbytes)
        return copy

    def converted(self, values: DeviceArray) -> DeviceArray:
        values = self._aligned(values)
        if self._precision == "float32" and not self.quantized:
            return values
        copy = aligned(self._device, values.size, self._precision, self._boundary, self._allocate)
        self._convert(values, copy)
        return copy

    @cached_property
    def _quantize(self) -> Converter:
        return Converter(self._device, "float32", self._boundary, self.quantized)

    def in_float32(self, values: DeviceArray) -> DeviceArray:
        if not self.quantized:
            return values
        copy = aligned(self._device, values.size, "float32", self._boundary)
        self._quantize(values, copy)
        return copy


class Collector:
    """Kernel that adds gradients summed up in halves to gradients in float32."""

    def __init__(self, device: Any, precision: str, factor: float):
        self._kernel = Kernel(device, collect_kernel(precision))
        self._factor = factor

    def __call__(self, gradients: Gradients) -> None:
        halves, flat = gradients.scatter, gradients.flat
        to = flat.address + (flat.size - halves.size) * ITEM_SIZES["float32"]
        self._kernel.over(halves.size, halves.address, self._factor, to, halves.size)
