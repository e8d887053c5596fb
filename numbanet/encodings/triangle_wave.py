"""TriangleWave: waves of period 2^(1 - k) made of straight lines between -1 and 1.

A cheaper stand-in for the sines of Frequency, without the cosines. Wave k is shifted by k quarters
of its period, so that the waves do not all have their corners at the same places.
Mueller et al. 2021, Real-time Neural Radiance Caching for Path Tracing, section 4.3.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import (
    HALF,
    ONE,
    ZERO,
    device,
    floor_to_int,
    local_array,
    power_of_two,
    select,
    unrolled,
    vectorized,
)
from numbanet.encodings.base import AbstractEncoding
from numbanet.registry import check, derived, register

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


@register("encoding", "TriangleWave")
@dataclass(frozen=True)
class TriangleWave(AbstractEncoding):
    """n_frequencies features per dimension."""

    n_dims: int = derived()
    n_frequencies: int = 12

    def __post_init__(self):
        check(1 <= self.n_frequencies <= 32, "n_frequencies", self.n_frequencies, "1 to 32")

    @property
    def n_outputs(self):
        return self.n_dims * self.n_frequencies

    @cached_property
    def forward(self):
        n_dims, width = self.n_dims, self.n_frequencies

        @device
        def dimension(d, x, y):
            vectorized(width, value, x[d], y[d * width : (d + 1) * width])

        @device
        def triangle_wave(x, params, y):  # x [n_dims], y [n_dims * width]
            unrolled(n_dims, dimension, x, y)

        return triangle_wave

    @cached_property
    def backward_input(self):
        n_dims, width = self.n_dims, self.n_frequencies

        @device
        def dimension(d, x, dl_dy, dl_dx):
            total = local_array(1)
            total[0] = ZERO
            vectorized(width, add_gradient, x[d], dl_dy[d * width : (d + 1) * width], total)
            dl_dx[d] = total[0]

        @device
        def triangle_wave_backward(x, params, dl_dy, dl_dx):
            unrolled(n_dims, dimension, x, dl_dy, dl_dx)

        return triangle_wave_backward

    @cached_property
    def double_backward_input(self):
        n_dims, width = self.n_dims, self.n_frequencies

        @device
        def dimension(d, x, dl_ddx, dl_ddy, dl_dx):
            vectorized(width, slope, x[d], dl_ddx[d], dl_ddy[d * width : (d + 1) * width])
            dl_dx[d] = ZERO

        @device
        def triangle_wave_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            unrolled(n_dims, dimension, x, dl_ddx, dl_ddy, dl_dx)

        return triangle_wave_double_backward
