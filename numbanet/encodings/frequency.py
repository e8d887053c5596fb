"""Frequency: sin(pi 2^k x) and cos(pi 2^k x) for k = 0 ... n_frequencies - 1.

Mildenhall et al. 2020, NeRF: Representing Scenes as Neural Radiance Fields, section 5.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import types

from numbanet.device import (
    HALF,
    ONE,
    PI,
    belongs_to,
    device,
    less_even,
    local_array,
    power_of_two,
    select,
    sin_pi,
    unrolled,
)
from numbanet.encodings.waves import AbstractWaves, Wave
from numbanet.ptx import instruction
from numbanet.registry import derived, register
from numbanet.storage.halves import TO_PAIR

SINE, SLOPE = np.int32(0), np.int32(1)  # orders of derivation

# Sines and cosines alternate: feature j of a dimension has the frequency 2^(j // 2), and is a sine
# shifted by a quarter turn if j is odd. Each derivation shifts by another one.


# A product with 2^k is exact, but may be too large for sin_pi. So whole periods are taken off
# before: from x, and for the higher frequencies once more from FAST x.
MANY = 40  # features of the lower frequencies
FAST = np.float32(2.0 ** (MANY // 2))


@device
def bases(x):
    slow = less_even(x)
    return slow, less_even(slow * FAST)


@device
def angular_frequency(j):
    return PI * power_of_two(j >> 1)


@device
def wave(x, j, order):  # the derivative of that order of feature j, over angular_frequency^order
    slow, fast = x
    quarter_turns = np.float32((np.int32(j) & np.int32(1)) + order)
    is_slow = np.int32(j) < np.int32(MANY)
    k = select(is_slow, np.int32(j), np.int32(np.int32(j) - np.int32(MANY))) >> np.int32(1)
    return sin_pi(power_of_two(k) * select(is_slow, slow, fast), HALF * quarter_turns)


# (x, scale) -> sin and cos of 2 pi x scale to 6e-7, by the unit that a GPU has for them. The
# product is exact and at most 2^21; first the nearest integer is subtracted, without rounding.
sine_and_cosine = instruction(
    "{ .reg .f32 n; fma.rn.f32 n, $2, $3, 0f4B400000; sub.rn.f32 n, n, 0f4B400000; neg.f32 n, n; "
    "fma.rn.f32 n, $2, $3, n; mul.rn.f32 n, n, 0f40C90FDB; "
    "sin.approx.f32 $0, n; cos.approx.f32 $1, n; }",
    types.UniTuple(types.float32, 2),
    *(types.float32, types.float32),
)


# Frequencies from one that takes the unit to the next; each one between doubles an angle. An error
# of 6e-7 in both waves becomes 2.2e-5 at most, of features that are rounded to halves.
DOUBLED = 4


@device
def of_twice_the_angle(sine, cosine):
    twice = sine + sine
    return twice * cosine, ONE - twice * sine


@device
def value(j, x, row):
    row[j] = wave(x, j, SINE)


@device
def slope(j, x, factor, row):
    row[j] = factor * angular_frequency(j) * wave(x, j, SLOPE)


@device
def add_gradient(j, x, row, total):
    total[0] += row[j] * angular_frequency(j) * wave(x, j, SLOPE)


@device
def add_curvature(j, x, row, total):
    factor = angular_frequency(j)
    total[0] -= row[j] * factor * factor * wave(x, j, SINE)


@device
def add_derivative(j, x, order, row):
    factor = angular_frequency(j)
    if order == 0:
        row[j] += wave(x, j, SINE)
    elif order == 1:
        row[j] += factor * wave(x, j, SLOPE)
    else:
        row[j] -= factor * factor * wave(x, j, SINE)


@register("encoding", "Frequency")
@dataclass(frozen=True)
class Frequency(AbstractWaves):
    """2 n_frequencies features per dimension."""

    wave = Wave(bases, value, slope, add_gradient, add_curvature, add_derivative)
    n_derivatives = 2
    n_features_per_frequency = 2

    n_dims: int = derived()
    n_frequencies: int = 12

    def partition_forward_pairs(self, precision: str, first_param: int) -> Callable | None:
        if precision not in TO_PAIR:
            return None
        to_pair = TO_PAIR[precision]
        n_dims, n_frequencies, n_slow = self.n_dims, self.n_frequencies, MANY // 2

        @device
        def pair(k, x, wave, words):
            slow, fast = x
            if k % DOUBLED != 0:
                sine, cosine = of_twice_the_angle(wave[0], wave[1])
            elif k < n_slow:
                sine, cosine = sine_and_cosine(slow, HALF * power_of_two(k))
            else:
                sine, cosine = sine_and_cosine(fast, HALF * power_of_two(k - n_slow))
            wave[0], wave[1] = sine, cosine
            words[k] = to_pair(sine, cosine)

        @device
        def dimension(d, x, words):
            wave, mine = local_array(2), words[d * n_frequencies : (d + 1) * n_frequencies]
            unrolled(n_frequencies, pair, bases(x[d]), wave, mine)

        @device
        @belongs_to("Frequency.partition_forward_pairs")
        def forward_pairs(partition, x, params, words):
            unrolled(n_dims, dimension, x, words)

        return forward_pairs
