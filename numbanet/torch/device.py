"""GPU with memory from PyTorch's allocator, and work on PyTorch's streams."""

from functools import cache

import torch

from numbanet.cuda.driver.device import CudaDevice
from numbanet.torch.tensor_memory import TensorMemory


def raw_stream(ordinal: int) -> int:
    """Address of PyTorch's current stream of a GPU."""
    return torch.cuda.current_stream(ordinal).cuda_stream


if hasattr(torch._C, "_cuda_getCurrentRawStream"):  # takes 0.1 us instead of 6
    raw_stream = torch._C._cuda_getCurrentRawStream


class TensorDevice(TensorMemory, CudaDevice):
    """CudaDevice for tensors: their addresses, and PyTorch's current stream.

    Nothing waits for what is queued elsewhere: all memory that a call needs is allocated for its
    stream, and given back when the call returns.
    """

    def __init__(self, ordinal: int):
        self._where = torch.device("cuda", ordinal)
        super().__init__(ordinal)
        self._raw_stream = None
        self.use_current_stream()

    def _create_pool(self, handle) -> None:
        """No operation: there is no pool beside PyTorch's."""

    def use_current_stream(self) -> None:
        """Queue on PyTorch's current stream from now on."""
        raw = raw_stream(self.ordinal)
        if raw != self._raw_stream:
            self._raw_stream, self._common_stream = raw, self._driver.CUstream(raw)

    def can_capture(self) -> bool:
        """Whether work can be queued as a graph; not while PyTorch captures one itself."""
        return not torch.cuda.is_current_stream_capturing()

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised tensor."""
        return torch.empty(shape, dtype=dtype, device=self._where)


@cache
def tensor_device(ordinal: int) -> TensorDevice:
    """Device of this GPU, of which a process has one object."""
    return TensorDevice(ordinal)
