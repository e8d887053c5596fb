"""Named buffers between kernels."""

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
