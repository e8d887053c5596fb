"""Named buffers between kernels, and what else changes the work of an engine's passes."""

from typing import Any

import numpy as np

from numbanet.cuda.memory.arrays import empty


class Rooms:
    """Buffers that are kept from pass to pass, and reallocated where more is needed."""

    def __init__(self, device: Any):
        self._device, self._arrays = device, {}
        self.generation = 0  # changes when memory has moved

    def release(self) -> None:
        self._arrays.clear()
        self.generation += 1

    def __call__(self, name: str, n_bytes: int) -> int:
        """Address of n_bytes bytes, uninitialised."""
        found = self._arrays.get(name)
        if found is None or found.nbytes < n_bytes:
            self._arrays.pop(name, None)  # freed before the new one is made
            found = empty((max(-(-n_bytes // 4), 1),), np.float32, self._device)
            self._arrays[name] = found
            self.generation += 1
        return found.address


class PassMemory:
    """Buffers of an engine's passes, and whether their sums are reproducible.

    Args:
        device: a CudaDevice, or anything with its methods.
    """

    def __init__(self, device: Any):
        self.device, self.rooms = device, Rooms(device)
        self._deterministic = False

    @property
    def generation(self) -> int:
        """Counter that changes when queued work is no longer valid."""
        return self.rooms.generation

    @property
    def deterministic(self) -> bool:
        """Whether sums are the same bits in every run; may be set."""
        return self._deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.rooms.generation += value != self._deterministic
        self._deterministic = value

    def release(self) -> None:
        """Free the memory between the kernels; it is allocated again when needed."""
        self.rooms.release()
