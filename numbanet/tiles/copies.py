"""Copies of a whole block of threads from global to shared memory."""

from functools import cache

import numpy as np

from numbanet.device import device, unrolled
from numbanet.storage.memory_access import load_words_in
from numbanet.storage.views import float_vector
from numbanet.tiles.instructions import copy_words, store_words

PIECE = 16  # bytes of the widest access
PIECE_HALVES = PIECE // 2


@cache
def rounded_words(precision: str):
    """Device function (target, source): as copy_words, of 8 float32 that are rounded; no wait."""
    load = load_words_in(precision, PIECE_HALVES // 2)

    @device
    def rounded_words(target, source):
        store_words(target, load(float_vector(source, PIECE_HALVES), 0))

    return rounded_words


@cache
def copy_rows(
    n_rows: int, width: int, pitch: int, n_threads: int, piece_pitch: int = PIECE,
    rounds_to: str | None = None,
):  # fmt: skip
    """Device function (thread, source, target): rows of halves, to rows `pitch` bytes apart.

    The pieces of 8 halves of a row are `piece_pitch` bytes apart.
    The copies are under way when it returns: wait_for_copies, then a barrier. But float32 that it
    `rounds_to` halves are written then.
    """
    per_row, source_bytes, copy = 2 * width // PIECE, PIECE, copy_words
    if rounds_to is not None:
        source_bytes, copy = 2 * PIECE, rounded_words(rounds_to)
    n_pieces, step = n_rows * per_row, n_threads
    row_pieces, piece, row_bytes = per_row, piece_pitch, pitch

    @device
    def places(k, source, target):  # of piece k, in both
        row, column = k // row_pieces, k % row_pieces
        to = target + row * row_bytes + column * piece
        return np.uint64(source + np.uint64(k) * np.uint64(source_bytes)), to

    if n_threads % per_row == 0 and n_rows * per_row % n_threads == 0:
        # A thread's pieces are in one column, at constant distances.
        n_mine, rows_apart = n_rows * per_row // n_threads, n_threads // per_row

        @device
        def copy_mine(j, source, target):
            there = np.uint64(source + np.uint64(source_bytes * n_threads * j))
            copy(target + rows_apart * pitch * j, there)

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
            copy(to, there)
            k += step

    return copy_rows
