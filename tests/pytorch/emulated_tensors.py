"""A GPU's tensors without a GPU: those of the CPU, in and beside the memory of the emulator."""

import math
import weakref

import torch

from emulator.device import EmulatedDevice
from emulator.ptx.dtypes import U8
from emulator.ptx.memory import HEAP_START, UNWRITTEN
from numbanet.torch.tensor_memory import TensorMemory

ALIGNMENT = 16  # bytes: what kernels may ask of an address


class EmulatedTensorDevice(TensorMemory, EmulatedDevice):
    """Has the methods of numbanet.torch.device.TensorDevice; every call begins on a stream anew.

    As PyTorch's allocator does, it gives memory of the same size again.
    """

    def __init__(self):
        self._copies = []
        self._spare = {}  # bytes -> addresses
        self.replayed = 0  # graphs
        super().__init__()

    def use_current_stream(self):
        self._copies.clear()

    def can_capture(self):
        return True

    def replay(self, graph):
        self.replayed += 1
        super().replay(graph)

    def empty(self, shape, dtype):
        """In the emulator's memory, for as long as something has its storage."""
        assert self._recording.work is None, "an allocation while a graph is captured"
        n_bytes = math.prod(shape) * dtype.itemsize
        spare = self._spare.setdefault(n_bytes, [])
        place = (spare.pop() if spare else self.memory.allocate(n_bytes)) - HEAP_START
        content = self.memory.whole(U8)[place : place + n_bytes]
        content[:] = UNWRITTEN
        weakref.finalize(content, spare.append, place + HEAP_START).atexit = False
        return torch.from_numpy(content).view(dtype).view(shape)

    def address_of(self, tensor):
        """Of the tensor, or of its copy until the next call, at as odd an address; 0 if empty."""
        assert tensor.is_contiguous()
        if tensor.numel() == 0:
            return 0
        whole = self.memory.whole(U8)
        place = tensor.data_ptr() - whole.ctypes.data
        if 0 <= place < whole.size:
            return HEAP_START + place
        content = tensor.detach().reshape(-1).view(torch.uint8)
        shift = tensor.data_ptr() % ALIGNMENT
        copy = self.empty((shift + content.numel(),), torch.uint8)
        self._copies.append(copy)
        copy[shift:] = content
        return copy.data_ptr() - whole.ctypes.data + HEAP_START + shift
