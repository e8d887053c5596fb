"""Tensors as the arrays of a target: PyTorch's memory, shared and never copied.

Outputs of a target's engines are allocated here too, by PyTorch's allocator, so the program may
use several streams and capture CUDA graphs as with PyTorch's own operators.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from numbanet.quantization import Quantized, quantize
from numbanet.torch.host_memory import HostMemory

ALIGNMENT = 16  # bytes: the widest access of a kernel
ITEMS = {  # names of dtypes for arrays of a device
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.uint16),
}
CPU = torch.device("cpu")


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """Array of a tensor of the CPU, in the same memory."""
    return tensor.detach().numpy() if tensor.requires_grad else tensor.numpy()


class HostTensors:
    """Tensors of the CPU, as NumPy arrays; kernels read float32 only.

    Args:
        quantized: parameters that kernels read in few bits.
    """

    def __init__(self, quantized: tuple[Quantized, ...] = ()):
        self._quantized, self._memory = quantized, HostMemory()

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Uninitialised tensor."""
        return torch.empty(shape, dtype=dtype, device=CPU)

    def state(self, n: int, width: int) -> torch.Tensor:
        """Uninitialised matrix for what the backward pass reads, float32."""
        return self._memory.empty(n, width)

    def gradients(self, n: int) -> torch.Tensor:
        """Uninitialised vector for the gradients of the parameters, float32."""
        return self._memory.empty(n)

    def read(
        self, params: torch.Tensor, is_read: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Parameters as the kernels read them; the given tensor where it serves.

        Or room for them, and what `run` is to convert.

        Args:
            is_read: whether that was done to them before.
        """
        read = params
        if params.dtype is not torch.float32 or not params.is_contiguous():
            read = params.detach().to(torch.float32).contiguous()
        if self._quantized and not is_read:
            read = torch.from_numpy(quantize(array_of(read), self._quantized))
        return read, None

    def recurring(self, engine: Any) -> None:
        """None: nothing is kept between passes."""

    def run(self, passes: None, queue: Callable, kind: tuple, x, read, source, *others) -> None:
        """Call queue(*kind, *arrays) with the arrays of the tensors but the source.

        Args:
            passes: the result of `recurring`.
            x: a row for each sample.
            read, source: the results of `read`.
            others: None where there is none.
        """
        tensors = x, read, *others
        queue(*kind, *[None if each is None else array_of(each) for each in tensors])


class DeviceTensors:
    """Tensors of a GPU, as DeviceArrays; has the methods of HostTensors.

    Args:
        device: a TensorDevice, or anything with its methods.
        precision: of the parameters that the kernels read.
        boundary: the first parameter of the encoding, which is aligned.
        quantized: parameters that kernels read in few bits.
    """

    def __init__(
        self, device: Any, precision: str, boundary: int, quantized: tuple[Quantized, ...] = ()
    ):
        # CUDA's part is loaded where it is needed
        from numbanet.cuda.memory.arrays import DeviceArray
        from numbanet.cuda.memory.parameters import Converter
        from numbanet.torch.recurring import Recurring

        self._device_array, self._recurring = DeviceArray, Recurring
        self._device, self._dtype = device, getattr(torch, precision)
        self._boundary = boundary
        self._quantized = quantized
        self._convert = Converter(device, precision, boundary, quantized, keeps_memory=False)

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return self._device.empty(shape, dtype)

    def state(self, n: int, width: int) -> torch.Tensor:
        return self.empty(n, width)

    def gradients(self, n: int) -> torch.Tensor:
        return self._aligned(n, torch.float32)

    def _aligned(self, n: int, dtype: torch.dtype) -> torch.Tensor:
        shift = -self._boundary % (ALIGNMENT // dtype.itemsize)
        made = self._device.empty((n + shift,), dtype)
        return made[shift:] if shift else made

    def read(
        self, params: torch.Tensor, is_read: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        n, dtype = params.shape[0], params.dtype
        aligned = (params.data_ptr() + self._boundary * dtype.itemsize) % ALIGNMENT == 0
        is_ready = aligned and params.is_contiguous()
        if self._quantized and not is_read:
            if not is_ready or dtype is not torch.float32:
                params = self._aligned(n, torch.float32).copy_(params)
            return self._aligned(n, self._dtype), params
        if is_ready:
            if dtype is self._dtype:
                return params, None
            if dtype is torch.float32:
                return self._aligned(n, self._dtype), params
        return self._aligned(n, self._dtype).copy_(params), None

    def recurring(self, engine: Any) -> Any:
        """Queue for recurring passes of an engine."""
        return self._recurring(self._device, engine)

    def run(self, passes: Any, queue: Callable, kind: tuple, *tensors) -> None:
        """Queue on PyTorch's current stream, and convert first; see HostTensors.

        Sums are deterministic where PyTorch's own algorithms are to be.
        """
        device, deterministic = self._device, torch.are_deterministic_algorithms_enabled()

        def convert_and_queue():
            x, read, source, *others = map(self._array, tensors, addresses)
            if source is not None:
                self._convert(source, read)
            queue(*kind, x, read, *others)

        with device.lock:
            device.use_current_stream()
            address_of = device.address_of
            addresses = tuple([0 if each is None else address_of(each) for each in tensors])
            n = tensors[0].shape[0]
            if passes.deterministic is not deterministic:
                passes.engine.deterministic = passes.deterministic = deterministic
            whole = queue.__name__, deterministic, *kind
            passes.run(whole, n, addresses, convert_and_queue)

    def _array(self, tensor: torch.Tensor | None, address: int) -> Any:
        """DeviceArray of a tensor in C order, in the same memory; float32 or the type of `read`."""
        if tensor is None:
            return None
        return self._device_array(tensor.shape, ITEMS[tensor.dtype], address, tensor, self._device)
