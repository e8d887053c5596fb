"""The largest gradient of each pair of features in a batch."""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import (
    block_index_y,
    n_threads,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.tables.units import magnitude_of_word, raise_word
from numbanet.device import select
from numbanet.tiles.instructions import load_words_from, warp_max

BLOCK, BLOCKS = 256, 32  # threads, and blocks of a pair of features
PIECE = 4  # words that are loaded at a time


@cache
def largest_kernel(precision: str):
    """(words, n, pitch, largest): word (q, i) is at q * pitch + i; block y has word q."""
    magnitude = magnitude_of_word(precision)

    def largest_gradients(pwords: Address, n: UInt, pitch: UInt, plargest: Address):
        q, i, step = block_index_y(), thread_number(), n_threads()
        row = np.uint64(pwords + np.uint64(4) * np.uint64(q) * np.uint64(pitch))
        n_pieces, largest = pitch >> 2, np.uint32(0)
        while i < n_pieces:
            piece = load_words_from(np.uint64(row + np.uint64(16) * np.uint64(i)))
            first = 4 * i
            for k in range(4):
                known = first + k < n
                largest = max(largest, magnitude(select(known, piece[k], np.uint32(0))))
            i += step
        of_warp = warp_max(largest)
        if (thread_index() & 31) == 0:
            raise_word(np.uint64(plargest + np.uint64(4) * np.uint64(q)), of_warp)

    largest_gradients.__qualname__ = f"largest_gradients_{precision}"
    return largest_gradients
