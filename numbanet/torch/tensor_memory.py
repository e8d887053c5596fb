"""Device memory from PyTorch's allocator, of which a pass takes one piece."""

from abc import ABC, abstractmethod

import torch

from numbanet.networks.base import next_multiple

ALIGNMENT = 256  # bytes, as a device's


class TensorMemory(ABC):
    """Mix-in for a device: its memory is tensors that `empty` makes, in a room where one is open.

    A room is one tensor that a pass allocates from, because each tensor costs the host more than
    many a kernel. Memory beyond the room is a tensor of its own.
    """

    def __init__(self, *arguments):
        self._tensors = {}  # by address, for as long as an engine needs them
        self._room, self._next, self._end = None, 0, 0
        self.taken = 0  # bytes since the room was opened, or would have been
        self.n_queued = 0  # kernels, and pieces of memory that were zeroed
        super().__init__(*arguments)

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Uninitialised tensor."""

    address_of = staticmethod(torch.Tensor.data_ptr)  # of a tensor's first element

    def open_room(self, n_bytes: int) -> int:
        """Allocate from n_bytes bytes until the room is closed; returns their address."""
        self.taken = self.n_queued = 0
        if n_bytes == 0:
            return 0
        self._room = self.empty((n_bytes,), torch.uint8)
        self._next = address = self.address_of(self._room)
        self._end = address + n_bytes
        return address

    def close_room(self) -> None:
        """Close the room, when nothing that was allocated from it is in use."""
        self._room, self._next, self._end = None, 0, 0

    def allocate(self, n_bytes: int) -> int:
        if n_bytes == 0:
            return 0
        size = next_multiple(n_bytes, ALIGNMENT)
        self.taken += size
        if self._next + size <= self._end:
            tensor, address = self._room, self._next
            self._next += size
        else:
            tensor = self.empty((n_bytes,), torch.uint8)
            address = self.address_of(tensor)
        self._tensors[address] = tensor  # the room too stays for as long as a part of it is in use
        return address

    def free(self, address: int) -> None:
        self._tensors.pop(address, None)

    def zero(self, address: int, n_bytes: int) -> None:
        self.n_queued += 1
        super().zero(address, n_bytes)

    def launch(self, *arguments) -> None:
        self.n_queued += 1
        super().launch(*arguments)
