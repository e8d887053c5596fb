"""A GPU's tensors without a GPU: those of the CPU, in and beside the memory of the emulator."""

import math

import torch

from emulator.device import EmulatedDevice
from emulator.ptx.dtypes import U8
from emulator.ptx.memory import HEAP_START

ALIGNMENT = 16  # bytes: what kernels may ask of an address


class EmulatedTensorDevice(EmulatedDevice):
    """Has the methods of numbanet.torch.device.TensorDevice; every call begins on a stream anew."""

    def __init__(self):
        super().__init__()
        self._copies = []

    def use_current_stream(self):
        while self._copies:
            self.memory.free(self._copies.pop())

    def empty(self, shape, dtype):
        """In the emulator's memory, for good."""
        n_bytes = math.prod(shape) * dtype.itemsize
        place = self.memory.allocate(n_bytes) - HEAP_START
        return self._whole()[place : place + n_bytes].view(dtype).view(shape)

    def address_of(self, tensor):
        """Of the tensor, or of its copy until the next call, at as odd an address."""
        assert tensor.is_contiguous()
        whole = self._whole()
        place = tensor.data_ptr() - whole.data_ptr()
        if 0 <= place < whole.numel():
            return HEAP_START + place
        content = tensor.detach().reshape(-1).view(torch.uint8)
        shift = tensor.data_ptr() % ALIGNMENT
        copy = self.memory.allocate(shift + content.numel())
        self._copies.append(copy)
        whole[copy + shift - HEAP_START :][: content.numel()] = content
        return copy + shift

    def tensor_of(self, array):
        return torch.from_numpy(array.numpy())

    def _whole(self):
        return torch.from_numpy(self.memory.whole(U8))
