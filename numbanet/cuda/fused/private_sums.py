"""Gradients of parameters as integer sums in the shared memory of a block.

Shared memory adds integers by an instruction; a sum of floats has to be swapped in, again and again
until no other thread came in between. So a block counts in a unit, a power of two, which the warp
that comes first derives from its own gradients. It is so large that no sum can overflow; a lane
whose gradients are too large for it adds them to global memory instead. Small ones do not vanish:
they are rounded up or down with probabilities that leave their mean as it is (Gupta et al. 2015,
Deep Learning with Limited Numerical Precision).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.block.layout import FusedLayout
from numbanet.cuda.tables.units import (
    EXPONENT_OF_NAN,
    EXPONENT_SHIFT,
    MAGNITUDE,
    SUM_BITS,
    exponent,
)
from numbanet.device import ZERO, device, float_bits, float_from_bits
from numbanet.storage.access import FRACTION_BITS, reduce_pair
from numbanet.storage.halves import TO_FLOATS
from numbanet.storage.views import VECTORS
from numbanet.tiles.instructions import (
    load_word,
    load_word_relaxed,
    store_word,
    swap_if_zero,
    warp_max,
)

FEWEST_BITS = 12  # of a number; with fewer there would be little left of it
HEADROOM = 2  # bits by which later gradients may be larger than the first ones
EXPONENT_BIAS, LARGEST_EXPONENT = 127, np.int32(254 - FRACTION_BITS - 1)
NOTHING, WORD = np.uint32(0), np.uint32(4)


@dataclass(frozen=True)
class PrivateSums:
    """Private sums of a block, and the types of their summands."""

    layout: FusedLayout
    precision: str  # of the gradients of features
    storage: str  # of the parameters' gradients in global memory

    @property
    def first(self) -> int:
        """Offset of the sums in shared memory; the scale follows them."""
        return self.layout.rows[-1]

    @property
    def scale(self) -> int:
        return self.first + 4 * self.layout.n_private_params

    @property
    def n_words(self) -> int:
        """Pairs of halves in a row of gradients, up to the last private feature."""
        _, stop = self.layout.model.encoding.partition_columns[self.layout.n_private - 1]
        return -(-stop // 2)


@cache
def clear(sums: PrivateSums):
    """Device function (thread, shared): zero the sums, and forget the scale."""
    n_threads = np.uint32(sums.layout.n_threads)
    first, end = sums.first, sums.scale + 4

    @device
    def clear(thread, shared):
        k = first + thread * WORD
        while k < end:
            store_word(shared + k, NOTHING)
            k += n_threads * WORD

    return clear


@cache
def most_bits(sums: PrivateSums):
    """Device function n -> bits of a number, so that sums over n samples do not overflow."""
    n_private, (part, *_) = sums.layout.n_private, sums.layout.model.encoding.parts
    n_additions = np.float32(max(part.encoding.partition_additions[:n_private]))

    @device
    def most_bits(n):
        bits = exponent(float_bits(np.float32(n) * n_additions)) - (EXPONENT_BIAS - 1)
        return np.int32(SUM_BITS - bits)

    return most_bits


@cache
def scale_of_warp(sums: PrivateSums):
    """Device function (words, factor, n_bits, lane, shared) -> factor of the gradients.

    All lanes of a warp take part; words are a lane's row of gradients. It is 0 for a lane whose
    gradients cannot be added to the sums, infinite and NaN ones among them.
    """
    n_words, to_floats, place = sums.n_words, TO_FLOATS[sums.precision], sums.scale

    @device
    def scale_of_warp(words, factor, n_bits, lane, shared):
        largest = NOTHING
        for q in range(n_words):
            low, high = to_floats(words[q])
            largest = max(largest, float_bits(factor * low) & MAGNITUDE)
            largest = max(largest, float_bits(factor * high) & MAGNITUDE)
        own, of_warp = exponent(largest), exponent(warp_max(largest))
        fits = np.int32(n_bits + 2 * EXPONENT_BIAS - 1)  # of the sum of both exponents
        address = shared + place
        scale = exponent(warp_max(load_word_relaxed(address)))
        if scale == 0:
            mine = min(np.int32(fits - HEADROOM - of_warp), LARGEST_EXPONENT)
            bits = np.uint32(max(mine, np.int32(0))) << EXPONENT_SHIFT
            usable = (of_warp > 0) & (of_warp < EXPONENT_OF_NAN)
            if usable & (lane == NOTHING) & (n_bits >= FEWEST_BITS):
                swap_if_zero(address, bits)
            scale = exponent(warp_max(load_word_relaxed(address)))
        if (scale > 0) & (np.int32(scale + own) <= fits) & (own < EXPONENT_OF_NAN):
            return float_from_bits(np.uint32(scale + FRACTION_BITS) << EXPONENT_SHIFT)
        return ZERO

    return scale_of_warp


@cache
def flush(sums: PrivateSums):
    """Device function (thread, shared, gradients): add the sums to global memory."""
    n_threads, n_params = sums.layout.n_threads, sums.layout.model.encoding.n_params
    n_pairs, vector = sums.layout.n_private_params // 2, VECTORS[sums.storage]
    first, place = sums.first, sums.scale

    @device
    def flush(thread, shared, gradients):
        to, k = vector(gradients, n_params), thread
        scale = exponent(load_word(shared + place))
        unit = float_from_bits(np.uint32(2 * EXPONENT_BIAS - scale) << EXPONENT_SHIFT)
        while k < n_pairs:
            address = shared + first + k * 8
            low, high = np.int32(load_word(address)), np.int32(load_word(address + WORD))
            if (low != 0) | (high != 0):
                i = k * 2
                reduce_pair(to, i, unit * np.float32(low), unit * np.float32(high))
            k += n_threads

    return flush
