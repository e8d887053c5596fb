"""Tensors as the arrays of a target, and back: the memory is shared, never copied."""

from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from numbanet.target import AbstractTarget


def array_of(tensor: torch.Tensor) -> Any:
    """The tensor as something that every target takes without the host, in C order."""
    tensor = tensor.detach().contiguous()
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def tensor_of(array: Any) -> torch.Tensor:
    """An array of a target as a tensor on the same device."""
    if isinstance(array, np.ndarray):
        return torch.from_numpy(array)
    if array.device.dlpack_device is None:  # an emulated GPU, whose memory only the host can copy
        return torch.from_numpy(array.numpy())
    return torch.from_dlpack(array)


def current_stream(target: AbstractTarget, tensor: torch.Tensor) -> AbstractContextManager:
    """What runs within is queued on PyTorch's current stream of the tensor's device."""
    if tensor.device.type != "cuda":
        return nullcontext()
    return _on_stream(target.device, tensor.device)


@contextmanager
def _on_stream(device: Any, where: torch.device):
    # PyTorch gives tensors away on its current device only. All engines of the device take its
    # lock, so that the stream stays.
    with torch.cuda.device(where), device.lock:
        device.stream = torch.cuda.current_stream(where).cuda_stream
        yield
