"""Tensors as the arrays of a target: the memory is PyTorch's, and shared, never copied.

What a target's engines write to is made here too, by PyTorch's allocator, so that the program may
use several streams and capture CUDA graphs as with PyTorch's own operators.
"""

from contextlib import nullcontext
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
    lock = nullcontext()

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Uninitialised."""
        return torch.empty(shape, dtype=dtype, device="cpu")

    def zeros(self, n: int, boundary: int) -> torch.Tensor:
        """A vector, float32."""
        return torch.zeros(n, dtype=torch.float32, device="cpu")

    def read(self, params: torch.Tensor, boundary: int) -> torch.Tensor:
        """Parameters as the kernels read them; the given tensor where it serves."""
        return params.detach().to(torch.float32).contiguous()

    def array(self, tensor: torch.Tensor) -> np.ndarray:
        """The same memory, of a tensor in C order."""
        return tensor.detach().numpy()

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """The same memory, of an array that an engine made."""
        return torch.from_numpy(array)

    def begin(self) -> None:
        """Nothing is queued."""

    def end(self, engine: Any) -> None:
        """Nothing is kept between the kernels."""


class DeviceTensors:
    """Of a GPU, as DeviceArrays.

    Args:
        device: a TensorDevice, or anything with its methods.
        dtype: of the parameters that the kernels read.
    """

    def __init__(self, device: Any, dtype: torch.dtype):
        from numbanet.cuda.memory.arrays import (
            DeviceArray,
        )  # CUDA's part is loaded where it is needed

        self._device_array = DeviceArray
        self.device, self.dtype, self.lock = device, dtype, device.lock

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Uninitialised."""
        return self.device.empty(shape, dtype)

    def zeros(self, n: int, boundary: int) -> torch.Tensor:
        """A vector, float32, whose element `boundary` is aligned: the first one of the encoding."""
        return self._aligned(n, torch.float32, boundary).zero_()

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

    def array(self, tensor: torch.Tensor) -> Any:
        """The same memory, of a tensor in C order; its type is float32 or that of `read`."""
        address = self.device.address_of(tensor)
        return self._device_array(tensor.shape, ITEMS[tensor.dtype], address, tensor, self.device)

    def tensor(self, array: Any) -> torch.Tensor:
        """The same memory, of an array that an engine made."""
        return self.device.tensor_of(array)

    def begin(self) -> None:
        """Queue on PyTorch's current stream, while the lock is held."""
        self.device.use_current_stream()

    def end(self, engine: Any) -> None:
        """Give what lies between the kernels back, for any stream's next work."""
        engine.release()
