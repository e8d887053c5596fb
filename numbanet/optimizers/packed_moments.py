"""Two moments in the bits of one float32, as bfloat16 each, rounded at random.

A moving average whose rate is below 2^-9 changes by less than half of a unit of the last place of
bfloat16, and never moves if it is rounded to the nearest. Rounded up or down with probabilities
that leave its mean as it is (Gupta et al. 2015, Deep Learning with Limited Numerical Precision), it
follows. The random number is mixed from the parameter's number and its step: the same in every run.

The first moment is the upper half, so that the whole is as large as it, but for its last bits.
"""

import numpy as np

from numbanet.device import device, float_bits, float_from_bits

UPPER, LOWER, HALF_BITS = np.uint32(0xFFFF0000), np.uint32(0xFFFF), np.uint32(16)
OF_PARAMETER, OF_STEP, OF_BOTH = (
    np.uint32(each)
    for each in (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)  # odd
)


@device
def unpack_moments(both):
    bits = np.uint32(float_bits(both))
    return float_from_bits(bits & UPPER), float_from_bits(np.uint32(bits << HALF_BITS))


@device
def pack_moments(m, v, i, k):
    """Moments of parameter i after its step k; both finite, v not negative."""
    noise = np.uint32(np.uint32(i) * OF_PARAMETER) ^ np.uint32(np.uint32(np.int32(k)) * OF_STEP)
    noise = np.uint32(np.uint32(noise ^ np.uint32(noise >> HALF_BITS)) * OF_BOTH)
    upper = np.uint32(np.uint32(float_bits(m)) + np.uint32(noise >> HALF_BITS)) & UPPER
    lower = np.uint32(np.uint32(float_bits(v)) + (noise & LOWER)) >> HALF_BITS
    return float_from_bits(np.uint32(upper | lower))


def packed(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    """pack_moments on the host, truncated."""
    upper, lower = (np.ascontiguousarray(each, np.float32).view(np.uint32) for each in (m, v))
    return ((upper & UPPER) | (lower >> HALF_BITS)).view(np.float32)


def unpacked(both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """unpack_moments on the host."""
    bits = np.ascontiguousarray(both, np.float32).view(np.uint32)
    return (bits & UPPER).view(np.float32), (bits << HALF_BITS).view(np.float32)
