"""Parameters and gradients on a CUDA device: in float32, and in the kernels' precision."""

import weakref
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import DeviceArray, Memory
from numbanet.cuda.memory.parameter_kernels import collect_kernel, convert_kernel
from numbanet.cuda.memory.quantize import Quantizer
from numbanet.engine import Gradients
from numbanet.parameters import AbstractParameters
from numbanet.quantization import Quantized
from numbanet.storage.views import DTYPES, ITEM_SIZES

ALIGNMENT = 16  # bytes: the widest access
ALL = slice(None)
ROOM = 1 << 12  # elements behind a vector, which parts of equal size may need, or pairs of halves


def aligned(device: Any, n: int, storage: str, boundary: int) -> DeviceArray:
    """Uninitialised vector whose element `boundary`, the first one of the encoding, is aligned.

    There is room for ROOM elements more.
    """
    item_size = ITEM_SIZES[storage]
    shift = -boundary * item_size % ALIGNMENT
    memory = Memory(device, shift + (n + ROOM) * item_size)
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
    """

    def __init__(
        self, device: Any, values: np.ndarray, n_matrix_params: int, precision: str,
        quantized: tuple[Quantized, ...] = (),
    ):  # fmt: skip
        self._device, self._precision = device, precision
        self._boundary, self.quantized = n_matrix_params, quantized
        self.master = aligned(device, values.size, "float32", n_matrix_params)
        device.copy_to_device(self.master.address, np.ascontiguousarray(values, np.float32))
        self._lease = None
        self._is_stale = False
        self._convert = Converter(device, precision, n_matrix_params, quantized)
        self.copy = self.converted(self.master)

    @property
    def array(self) -> DeviceArray:
        lease = self._lease and self._lease()
        if lease is None:
            lease = Lease(self.master.owner)
            self._lease = weakref.ref(lease)
        master = self.master
        return DeviceArray(master.shape, master.dtype, master.address, lease, self._device)

    def assign(self, values: DeviceArray) -> None:
        self._device.copy(self.master.address, values.address, self.master.nbytes)
        self._is_stale = True
        self.n_assigned += 1

    def touch(self) -> None:
        """Mark the copy as stale, so that it is renewed before the kernels read it."""
        self._is_stale = True

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
            self._convert(self.master, self.copy)
        elif self.copy is not self.master and self.master[which].size:
            self._convert(self.master[which], self.copy[which])

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
            self._convert(self.master, self.copy)

    def converted(self, values: DeviceArray) -> DeviceArray:
        if (values.address + self._boundary * ITEM_SIZES["float32"]) % ALIGNMENT:
            copy = aligned(self._device, values.size, "float32", self._boundary)
            self._device.copy(copy.address, values.address, values.nbytes)
            values = copy
        if self._precision == "float32" and not self.quantized:
            return values
        copy = aligned(self._device, values.size, self._precision, self._boundary)
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
