"""Features of samples and their gradients, stored by fused kernels for the kernels of tables.

Each pair of features, a word, has a row of all samples, padded to a multiple of 4.
"""

from functools import cache

import numpy as np

from numbanet.device import device, unrolled
from numbanet.tiles.instructions import load_word_from, store_word_to


@device
def place_of(q, i, n_samples, address):  # of word q of sample i
    pitch = (n_samples + 3) & 0xFFFFFFFC
    return address + (np.uint64(q) * np.uint64(pitch) + np.uint64(i)) * 4


@cache
def load_given(first: int, given: tuple[int, ...]):
    """Device function (words, i, n_samples, address): read the given words of sample i.

    They are 0 beyond the last sample. Word `first` has the first row.
    """
    n, numbers = len(given), given or (0,)

    @device
    def load_one(k, words, i, n_samples, address):
        q = numbers[k]
        words[q] = np.uint32(0)
        if i < n_samples:
            words[q] = load_word_from(place_of(q - first, i, n_samples, address))

    @device
    def load_given(words, i, n_samples, address):
        unrolled(n, load_one, words, i, n_samples, address)

    return load_given


@cache
def keep_words(first: int, stop: int):
    """Device function (words, i, n_samples, address): write words `first` to `stop` of sample i."""
    n = stop - first

    @device
    def keep(q, words, i, n_samples, address):
        store_word_to(place_of(q, i, n_samples, address), words[first + q])

    @device
    def keep_words(words, i, n_samples, address):
        unrolled(n, keep, words, i, n_samples, address)

    return keep_words
