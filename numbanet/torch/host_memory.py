"""Memory of the CPU for tensors that every step makes anew.

The C library gives large pieces back to the system. New ones come without pages, and to get a page
takes longer than to fill it.
"""

import math
import weakref
from collections import deque

import numpy as np
import torch

SMALLEST, LARGEST = 1 << 15, 1 << 24  # floats of a piece; others come from PyTorch alone
MOST_PIECES = 4  # kept


class HostMemory:
    """Float32 memory of the CPU; a piece is lent again when no tensor has it any more.

    Pieces are kept for as long as the object is. Threads need no lock: only one gets a piece.
    """

    def __init__(self):
        self._pieces = deque(maxlen=MOST_PIECES)  # with a weak reference to who has it

    def empty(self, *shape: int) -> torch.Tensor:
        """Uninitialised tensor of the shape; like every view of an array, it cannot grow.

        PyTorch raises a RuntimeError where it is resized beyond its size; a clone of it can grow.
        """
        n = math.prod(shape)
        if not SMALLEST <= n <= LARGEST:
            return torch.empty(shape, dtype=torch.float32, device="cpu")
        piece = self._idle(n)
        if piece is None:
            piece = torch.empty(n, dtype=torch.float32, device="cpu").numpy()
        lent = piece[:n].reshape(shape)  # which the tensor's storage keeps alive, and nothing else
        self._pieces.append((piece, weakref.ref(lent)))
        return torch.from_numpy(lent)

    def _idle(self, n: int) -> np.ndarray | None:
        """Piece of at least n floats that no tensor has, taken out; None if there is none."""
        for _ in range(len(self._pieces)):
            try:
                piece, lent = self._pieces.popleft()
            except IndexError:  # other threads have taken them
                break
            if lent() is None and n <= piece.size <= 2 * n:
                return piece
            self._pieces.append((piece, lent))
        return None
