"""What a kernel that trains leaves to the tables: the gradients of a sample's features."""

from functools import cache

import numpy as np

from numbanet.device import device, unrolled
from numbanet.tiles.instructions import store_word_to


@cache
def keep_words(first: int, stop: int):
    """Device function (words, i, n_samples, address): write words `first` to `stop` of sample i.

    Each word has a row of all samples, padded to a multiple of 4, for whoever adds up gradients
    of parameters by pairs of features.
    """

    n = stop - first

    @device
    def keep(q, words, i, pitch, address):
        place = np.uint64(np.uint64(q) * np.uint64(pitch) + np.uint64(i))
        store_word_to(np.uint64(address + np.uint64(4) * place), words[first + q])

    @device
    def keep_words(words, i, n_samples, address):
        pitch = (n_samples + 3) & 0xFFFFFFFC
        unrolled(n, keep, words, i, pitch, address)

    return keep_words
