"""Frequency: sin(pi 2^k x) and cos(pi 2^k x) for k = 0 ... n_frequencies - 1.

Mildenhall et al. 2020, NeRF: Representing Scenes as Neural Radiance Fields, section 5.1.
"""

from dataclasses import dataclass

import numpy as np

from numbanet.device import (
    HALF,
    PI,
    device,
    less_even,
    power_of_two,
    select,
    sin_pi,
)
from numbanet.encodings.waves import AbstractWaves, Wave
from numbanet.registry import derived, register

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
