"""Copies of a whole block of threads from global to shared memory."""

from functools import cache

import numpy as np

from numbanet.device import device
from numbanet.tiles.instructions import copy_words

PIECE = 16  # bytes


@cache
def copy_rows(n_rows: int, width: int, pitch: int, n_threads: int):
    """Device function (thread, source, target): rows of halves, to rows `pitch` bytes apart.

    The copies are under way when it returns: wait_for_copies, then a barrier.
    """
    per_row = 2 * width // PIECE
    n_pieces, step = np.uint32(n_rows * per_row), np.uint32(n_threads)
    row_pieces, piece, row_bytes = np.uint32(per_row), np.uint32(PIECE), np.uint32(pitch)

    @device
    def copy_rows(thread, source, target):
        k = thread
        while k < n_pieces:
            row, column = np.uint32(k // row_pieces), np.uint32(k % row_pieces)
            to = np.uint32(target + row * row_bytes + column * piece)
            copy_words(to, np.uint64(source + np.uint64(k) * np.uint64(PIECE)))
            k = np.uint32(k + step)

    return copy_rows
