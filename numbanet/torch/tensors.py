"""Tensors as the arrays of a target: the memory is PyTorch's, and shared, never copied.

What a target's engines write to is made here too, by PyTorch's allocator, so that the program may
use several streams and capture CUDA graphs as with PyTorch's own operators.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

ALIGNMENT = 16  # bytes: the widest access of a kernel
ITEMS = {  # what an array of a device calls them
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),
}


class HostTensors:
    """Of the CPU, as NumPy arrays; float32 is all that the kernels read."""

    dtype = torch.float32

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Uninitialised."""
        return torch.empty(shape, dtype=dtype, device="cpu")

    def gradients(self, n: int, boundary: int) -> torch.Tensor:
        """An uninitialised vector, float32."""
        return self.empty(n)

    def read(self, params: torch.Tensor, boundary: int) -> torch.Tensor:
        """Parameters as the kernels read them; the given tensor where it serves."""
        return params.detach().to(torch.float32).contiguous()

    def recurring(self, engine: Any) -> None:
        """Nothing is kept between passes."""

    def run(self, passes: None, queue: Callable, kind: tuple, *tensors: torch.Tensor | None) -> Any:
        """Call queue(*kind, *arrays) with the arrays of the tensors."""
        return queue(*kind, *(each if each is None else each.detach().numpy() for each in tensors))


class DeviceTensors:
    """Of a GPU, as DeviceArrays.

    Args:
        device: a TensorDevice, or anything with its methods.
        dtype: of the parameters that the kernels read.
    """

    def __init__(self, device: Any, dtype: torch.dtype):
        # CUDA's part is loaded where it is needed
        from numbanet.cuda.memory.arrays import DeviceArray
        from numbanet.torch.recurring import Recurring

        self._device_array, self._recurring = DeviceArray, Recurring
        self.device, self.dtype = device, dtype

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Uninitialised."""
        return self.device.empty(shape, dtype)

    def gradients(self, n: int, boundary: int) -> torch.Tensor:
        """An uninitialised vector, float32, whose element `boundary`, the encoding's first one, is
        aligned.
        """
        return self._aligned(n, torch.float32, boundary)

    def _aligned(self, n: int, dtype: torch.dtype, boundary: int) -> torch.Tensor:
        shift = -boundary % (ALIGNMENT // dtype.itemsize)
        made = self.device.empty((n + shift,), dtype)
        return made[shift:] if shift else made

    def read(self, params: torch.Tensor, boundary: int) -> torch.Tensor:
        """Parameters as the kernels read them; the given tensor where it serves."""
        found = params.to(self.dtype)
        aligned = (found.data_ptr() + boundary * found.itemsize) % ALIGNMENT == 0
        if aligned and found.is_contiguous():
            return found
        return self._aligned(found.numel(), self.dtype, boundary).copy_(found)

    def _array(self, tensor: torch.Tensor | None, address: int) -> Any:
        """The same memory, of a tensor in C order; its type is float32 or that of `read`."""
        if tensor is None:
            return None
        return self._device_array(tensor.shape, ITEMS[tensor.dtype], address, tensor, self.device)

    def recurring(self, engine: Any) -> Any:
        """What queues the passes of an engine."""
        return self._recurring(self.device, engine)

    def run(self, passes: Any, queue: Callable, kind: tuple, *tensors) -> None:
        """Queue on PyTorch's current stream what queue(*kind, *arrays) queues.

        The first tensor has a row for each sample.
        """
        device = self.device
        with device.lock:
            device.use_current_stream()
            addresses = tuple([0 if each is None else device.address_of(each) for each in tensors])
            n = tensors[0].shape[0]
            passes.run(
                (queue.__name__, *kind),
                n,
                addresses,
                lambda: queue(*kind, *map(self._array, tensors, addresses)),
            )
