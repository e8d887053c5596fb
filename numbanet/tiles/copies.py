"""Copies of a whole block of threads from global to shared memory."""

from functools import cache

import numpy as np

from numbanet.device import device, unrolled
from numbanet.tiles.instructions import copy_words

PIECE = 16  # bytes of the widest access
PIECE_HALVES = PIECE // 2


@cache
def copy_rows(n_rows: int, width: int, pitch: int, n_threads: int, piece_pitch: int = PIECE):
    """Device function (thread, source, target): rows of halves, to rows `pitch` bytes apart.

    The pieces of 8 halves of a row are `piece_pitch` bytes apart.
    The copies are under way when it returns: wait_for_copies, then a barrier.
    """
    per_row = 2 * width // PIECE
    n_pieces, step = n_rows * per_row, n_threads
    row_pieces, piece, row_bytes = per_row, piece_pitch, pitch

    @device
    def places(k, source, target):  # of piece k, in both
        row, column = k // row_pieces, k % row_pieces
        to = target + row * row_bytes + column * piece
        return np.uint64(source + np.uint64(k) * np.uint64(PIECE)), to

    if n_threads % per_row == 0 and n_rows * per_row % n_threads == 0:
        # A thread's pieces are in one column, at constant distances.
        n_mine, rows_apart = n_rows * per_row // n_threads, n_threads // per_row

        @device
        def copy_mine(j, source, target):
            there = np.uint64(source + np.uint64(PIECE * n_threads * j))
            copy_words(target + rows_apart * pitch * j, there)

        @device
        def copy_columns(thread, source, target):
            first, to = places(thread, source, target)
            unrolled(n_mine, copy_mine, first, to)

        return copy_columns

    @device
    def copy_rows(thread, source, target):
        k = thread
        while k < n_pieces:
            there, to = places(k, source, target)
            copy_words(to, there)
            k += step

    return copy_rows
