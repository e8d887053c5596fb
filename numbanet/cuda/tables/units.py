"""Units of integer sums of gradients, and instructions for them.

A unit is a power of two. It follows from the largest gradient of a level in the batch and from how
many additions one sum can get at most, so that no sum overflows whatever the data. What is smaller
than a unit is rounded up or down at random (Gupta et al. 2015, Deep Learning with Limited Numerical
Precision), by a number that depends on the data alone: sums do not depend on the order in which
they are made, and are the same bits in every run.
"""

import numpy as np
from numba.types import uint32, uint64, void

from numbanet.cuda.launch.threads import exchange
from numbanet.device import device, float_bits, float_from_bits
from numbanet.ptx import instruction
from numbanet.storage.access import FRACTION_BITS
from numbanet.storage.views import uint32_vector
from numbanet.tiles.instructions import access

SUM_BITS = 30  # of a sum without its sign, less one for rounding
MOST_BITS = 22  # of a number, so that it still fits int32 with its fraction
EXPONENT_SHIFT, EXPONENT_OF_NAN = np.uint32(23), np.int32(255)
SMALLEST = np.int32(64)  # exponents below count as this: sums of numbers near 2^-63 stay normal
MAGNITUDE, NAN_BITS = np.uint32(0x7FFFFFFF), np.uint32(0x7FC00000)
BIAS = np.int32(127)
LARGE = np.float32(2.0**40).view(np.uint32)  # less than any optimizer calls infinite


# (address, word): a word of global memory becomes this one, if it is larger.
raise_word = access("red.global.max.u32 [$0], $1;", void, uint64, uint32)
# (address, n): add to a word in shared memory; returns the old value.
count_up = access("atom.shared.add.u32 $0, [$1], $2;", uint32, uint32, uint32)
leading_zeros = instruction("clz.b32 $0, $1;", uint32, uint32)


@device
def bit_length(word):  # without leading zeros
    return 32 - leading_zeros(word)


@device
def largest_of_warp(word):  # of all lanes; `redux` is not for GPUs before Ampere
    for k in range(5):
        other = float_bits(exchange(float_from_bits(word), np.uint32(1 << k)))
        word = max(word, np.uint32(other))
    return word


@device
def exponent(bits):  # of a float without sign, with its bias
    return np.int32(bits >> EXPONENT_SHIFT)


@device
def power(k):  # 2^k for a whole number of usual size
    return float_from_bits(np.uint32(np.int32(k + BIAS)) << EXPONENT_SHIFT)


@device
def bits_for(n):  # of a number, n of which are added up
    n_bits = np.int32(exponent(float_bits(np.float32(n))) - BIAS + np.int32(1))
    return min(np.int32(np.int32(SUM_BITS) - n_bits), np.int32(MOST_BITS))


@device
def exponent_above(bits):
    """Exponent e of a number without sign, which is below 2^e; see largest_exponent."""
    found = exponent(bits)
    above = np.int32(max(found, SMALLEST) - BIAS + np.int32(1))
    return EXPONENT_OF_NAN if found == EXPONENT_OF_NAN else above


def largest_exponent(n_words: int):
    """Device function (address, q) -> e: the numbers of words q ... are all below 2^e.

    EXPONENT_OF_NAN where one of them is infinite or NaN.
    """

    @device
    def largest_exponent(address, q):
        largest, bits = uint32_vector(address, 1), np.uint32(0)
        for k in range(n_words):
            bits = max(bits, largest[q + k])
        return exponent_above(bits)

    return largest_exponent


@device
def note(value, noted):  # remember the size of a gradient that an optimizer may not bear, or NaN
    bits = float_bits(value) & MAGNITUDE
    if bits >= LARGE:
        raise_word(noted, bits)


@device
def unit_of(e, bits):  # NaN for infinities and NaN
    if e == EXPONENT_OF_NAN:
        return float_from_bits(NAN_BITS)
    return power(np.int32(e - bits))


@device
def scale_of(e, bits):  # factor of numbers below 2^e, fraction included
    return power(np.int32(bits - e + np.int32(FRACTION_BITS))) if e < EXPONENT_OF_NAN else power(0)
