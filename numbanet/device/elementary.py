"""Elementary functions in float32, the same on every target: exponentials, logarithms, sines."""

import math

import numpy as np

from numbanet.device.declare import HALF, ONE, PI, TWO, ZERO, device, exact
from numbanet.device.local import float_bits
from numbanet.device.registers import at_least, at_most, float_from_bits, select

# Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
ROUND = np.float32(1.5 * 2**23)
EXPONENT_BIAS, EXPONENT_SHIFT, SIGN_SHIFT = np.uint32(127), np.uint32(23), np.uint32(31)
EXP_MIN, EXP_MAX = np.float32(-87.3), np.float32(88.3)  # the scale stays a normal number
INVERSE_LN2 = np.float32(1.0 / math.log(2.0))
LN2_HIGH = np.float32(0.693359375)  # 10 bits, so that a multiple of it is exact
LN2_LOW = np.float32(math.log(2.0) - 0.693359375)
LN2 = np.float32(math.log(2.0))
SQRT_HALF_BITS, MANTISSA_SIZE = np.int32(0x3F3504F3), np.int32(23)
INVERSE_PI = np.float32(1.0 / math.pi)
PI_HIGH = np.float32(3.140625)  # 8 bits
PI_MIDDLE = np.float32(0.0009675025939941406)  # 11 bits
SINE_MAX = np.float32(2**18)
PI_LOW = np.float32(math.pi - 3.140625 - 0.0009675025939941406)
EVEN = np.float32(2**24)  # and larger float32 numbers are even integers
FOURS = np.float32(1.5 * 2**25)  # adding it rounds to the nearest multiple of 4


@exact
def exp_reduce(x):  # x = n ln 2 + r with |r| <= ln(2) / 2; returns 2^n and r
    shifted = x * INVERSE_LN2 + ROUND
    n = shifted - ROUND
    scale = float_from_bits((float_bits(shifted) + EXPONENT_BIAS) << EXPONENT_SHIFT)
    return scale, (x - n * LN2_HIGH) - n * LN2_LOW


@device
def exp_parts(x):
    """e^x as (scale, tail), with e^x = scale (1 + tail) and scale a power of two."""
    scale, r = exp_reduce(at_most(at_least(x, EXP_MIN), EXP_MAX))
    series = np.float32(1.3981999507e-3) + np.float32(1.9875691500e-4) * r
    series = np.float32(8.3334519073e-3) + series * r
    series = np.float32(4.1665795894e-2) + series * r
    series = np.float32(1.6666665459e-1) + series * r
    series = np.float32(5.0000001201e-1) + series * r
    return scale, r + r * r * series


@device
def exp(x):
    """e^x to 1e-7; x is clamped to [-87.3, 88.3], so it neither overflows nor reaches zero.

    Coefficients: Cephes (Moshier 1992), expf.
    """
    scale, tail = exp_parts(x)
    return scale + scale * tail


@exact
def add_exp_parts(scale, tail):
    return scale * tail + (scale - ONE)


@device
def exp_minus_one(x):
    """e^x - 1, with a small relative error also near x = 0."""
    scale, tail = exp_parts(x)
    return add_exp_parts(scale, tail)


@device
def log_one_plus_small(r):  # ln(1 + r) = 2 artanh(r / (2 + r)) for r in [-1/3, 1]
    s = r / (TWO + r)
    q = s * s
    series = np.float32(0.1399971108) + np.float32(0.1401149896) * q  # minimax
    series = np.float32(0.2001084150) + series * q
    series = np.float32(0.3333320669) + series * q
    return TWO * s * (ONE + series * q)


@device
def log(x):
    """ln x to 3e-7 for x > 0, and at least -88; x = 2^n m with m in [sqrt 1/2, sqrt 2)."""
    bits = np.int32(float_bits(x))
    n = np.int32(np.int32(bits - SQRT_HALF_BITS) >> MANTISSA_SIZE)
    m = float_from_bits(np.uint32(bits - np.int32(n << MANTISSA_SIZE)))
    return np.float32(n) * LN2 + log_one_plus_small(m - ONE)


@exact
def rounding_of_sum(total, x):  # of total = 1 + x
    return x - (total - ONE)


@device
def log_one_plus(x):
    """ln(1 + x) for x >= 0, with a small relative error also near x = 0."""
    total = ONE + x
    return log(total) + rounding_of_sum(total, x) / total


@exact
def pi_reduce(x, shift):  # x + shift pi = n pi + r with |r| <= pi / 2; returns n in bits, and r
    shifted = (x * INVERSE_PI + shift) + ROUND
    n = (shifted - ROUND) - shift
    return float_bits(shifted), ((x - n * PI_HIGH) - n * PI_MIDDLE) - n * PI_LOW


@device
def signed_sine(n, r):  # (-1)^n sin r for |r| <= pi / 2
    square = r * r
    series = np.float32(-1.98110311e-4) + np.float32(2.60873171e-6) * square
    series = np.float32(8.33308719e-3) + series * square
    series = np.float32(-1.66666604e-1) + series * square
    sine = r + r * square * series
    return float_from_bits(float_bits(sine) ^ np.uint32(n << SIGN_SHIFT))


@device
def sin_shifted(x, shift):
    n, r = pi_reduce(at_most(at_least(x, -SINE_MAX), SINE_MAX), shift)
    return signed_sine(n, r)


@device
def sin(x):
    """sin x to 2e-7 for |x| <= 1e5; the coefficients minimise the error on [-pi/2, pi/2].

    Beyond 2^18, where neighbouring floats are 1/32 apart and more, x is clamped.
    """
    return sin_shifted(x, ZERO)


@device
def cos(x):
    """cos x to 2e-7 for |x| <= 1e5."""
    return sin_shifted(x, HALF)


@exact
def half_turn_reduce(x, shift):  # x + shift = n + r with |r| <= 1 / 2; returns n in bits, and r
    shifted = (x + shift) + ROUND
    n = (shifted - ROUND) - shift
    return float_bits(shifted), x - n


@device
def sin_pi(x, shift):
    """sin(pi (x + shift)) to 2e-7 for |x| <= 2^21; shift is n / 2, |n| <= 3.

    Faster than sin(PI * x), and exact for every such x, since no multiple of pi is subtracted.
    """
    n, r = half_turn_reduce(x, shift)
    return signed_sine(n, PI * r)


@exact
def less_even(x):
    """x less some even integer, which changes no sin_pi: without rounding, and in [-2, 2]."""
    x = select(abs(x) < EVEN, x, ZERO)
    return x - ((x + FOURS) - FOURS)


@device
def power_of_two(k):
    """2^k as a float, for integers k from -126 to 127."""
    return float_from_bits((np.uint32(k) + EXPONENT_BIAS) << EXPONENT_SHIFT)
