"""TriangleWave: waves of period 2^(1 - k) made of straight lines between -1 and 1.

A cheaper stand-in for the sines of Frequency, without the cosines. Wave k is shifted by k quarters
of its period, so that the waves do not all have their corners at the same places.
Mueller et al. 2021, Real-time Neural Radiance Caching for Path Tracing, section 4.3.
"""

from dataclasses import dataclass

import numpy as np

from numbanet.device import (
    HALF,
    ONE,
    device,
    floor_to_int,
    power_of_two,
    select,
)
from numbanet.encodings.waves import AbstractWaves, Wave
from numbanet.registry import derived, register

QUARTER, FOUR = np.float32(0.25), np.float32(4.0)
PERIODS_MAX = np.float32(2.0**30)  # beyond, a float32 is an integer anyway


@device
def phase(x, k):  # in [0, 1) of wave k; whole periods go before the shift, which would round
    periods = min(max(x * (HALF * power_of_two(k)), -PERIODS_MAX), PERIODS_MAX)
    shift = QUARTER * np.float32(np.int32(k) & np.int32(3))
    shifted = periods - np.float32(floor_to_int(periods)) + shift
    return select(shifted < ONE, shifted, shifted - ONE)


@device
def wave_slope(x, k):
    steepness = power_of_two(k + 1)
    return select(phase(x, k) < HALF, -steepness, steepness)


@device
def value(k, x, row):
    row[k] = FOUR * abs(phase(x, k) - HALF) - ONE


@device
def slope(k, x, factor, row):
    row[k] = factor * wave_slope(x, k)


@device
def add_gradient(k, x, row, total):
    total[0] += row[k] * wave_slope(x, k)


@device
def itself(x):
    return x


@device
def add_no_curvature(k, x, row, total):
    """Add nothing, as lines have no curvature."""


@device
def add_derivative(k, x, order, row):
    if order == 0:
        row[k] += FOUR * abs(phase(x, k) - HALF) - ONE
    elif order == 1:
        row[k] += wave_slope(x, k)


@register("encoding", "TriangleWave")
@dataclass(frozen=True)
class TriangleWave(AbstractWaves):
    """n_frequencies features per dimension."""

    wave = Wave(itself, value, slope, add_gradient, add_no_curvature, add_derivative)
    n_derivatives = 1
    n_features_per_frequency = 1

    n_dims: int = derived()
    n_frequencies: int = 12
