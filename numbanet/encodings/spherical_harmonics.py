"""SphericalHarmonics: the real harmonics below `degree`, as polynomials of v = 2x - 1.

    Y(l, +-m) = K(l, m) D(l, m)(z) {Re, Im} (x + iy)^m, at index l^2 + l +- m, for 0 <= m <= l

with D(l, m) the m-th derivative of the Legendre polynomial P_l. Its own derivative is D(l, m + 1)
and that of a power is a lower power, so values, gradients and Hessians need nothing but D and the
powers. The direction v is not normalised. Sloan 2008, Stupid Spherical Harmonics Tricks.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, TWO, ZERO, device, local_array, unrolled
from numbanet.encodings.base import AbstractEncoding
from numbanet.registry import check, derived, register

MAX_DEGREE = 8
PITCH = MAX_DEGREE + 2  # of the table of D, whose columns m > l are zero
TABLE = MAX_DEGREE * PITCH


def harmonic_factor(l, m) -> np.float32:  # noqa: E741
    """K(l, m), with the sign of Condon and Shortley and the sqrt(2) of the real harmonics."""
    ratio = math.factorial(l - m) / math.factorial(l + m)
    norm = math.sqrt((2 * l + 1) / (4 * math.pi) * ratio)
    return np.float32((-1) ** m * norm * (math.sqrt(2) if m else 1))


# (l, m, K), degree by degree
TERMS = tuple((l, m, harmonic_factor(l, m)) for l in range(MAX_DEGREE) for m in range(l + 1))  # noqa: E741


@device
def legendre_term(k, z, table):
    l, m, _ = TERMS[k]  # noqa: E741
    here = l * PITCH + m
    if m == l:
        table[here] = np.float32(2 * l - 1) * table[here - PITCH - 1] if l > 0 else ONE
        table[here + 1] = ZERO
        table[here + 2] = ZERO
    else:
        value = np.float32(2 * l - 1) * z * table[here - PITCH]
        if m < l - 1:
            value -= np.float32(l + m - 1) * table[here - 2 * PITCH]
        table[here] = value * (ONE / np.float32(l - m))


@device
def power_term(m, x, y, real, imaginary):
    if m == 0:
        real[0] = ONE
        imaginary[0] = ZERO
    else:
        real[m] = x * real[m - 1] - y * imaginary[m - 1]
        imaginary[m] = x * imaginary[m - 1] + y * real[m - 1]


@device
def power_slope(m, u, v, real, imaginary):  # d (x + iy)^m for d(x, y) = (u, v)
    if m == 0:
        return ZERO, ZERO
    factor = np.float32(m)
    lower, lower_imaginary = factor * real[m - 1], factor * imaginary[m - 1]
    return u * lower - v * lower_imaginary, u * lower_imaginary + v * lower


@device
def value_term(k, table, real, imaginary, y):
    l, m, factor = TERMS[k]  # noqa: E741
    value = factor * table[l * PITCH + m]
    middle = l * l + l
    y[middle + m] = value * real[m]
    if m > 0:
        y[middle - m] = value * imaginary[m]


@device
def gradient_term(k, table, real, imaginary, dl_dy, dl_dv):
    l, m, factor = TERMS[k]  # noqa: E741
    value, slope = factor * table[l * PITCH + m], factor * table[l * PITCH + m + 1]
    middle = l * l + l
    g = dl_dy[middle + m]
    if m == 0:
        dl_dv[2] += slope * g
    else:
        h = dl_dy[middle - m]
        dl_dv[2] += slope * (g * real[m] + h * imaginary[m])
        weight = value * np.float32(m)
        dl_dv[0] += weight * (g * real[m - 1] + h * imaginary[m - 1])
        dl_dv[1] += weight * (h * real[m - 1] - g * imaginary[m - 1])


@device
def hessian_term(k, table, real, imaginary, dl_dy, direction, dl_ddy, dl_dv):
    l, m, factor = TERMS[k]  # noqa: E741
    here = l * PITCH + m
    value, slope, curvature = (
        factor * table[here],
        factor * table[here + 1],
        factor * table[here + 2],
    )
    u, v, w = direction[0], direction[1], direction[2]
    middle = l * l + l
    g = dl_dy[middle + m]
    value_change, slope_change = slope * w, curvature * w
    if m == 0:
        dl_ddy[middle] = value_change
        dl_dv[2] += slope_change * g
    else:
        h = dl_dy[middle - m]
        change, imaginary_change = power_slope(m, u, v, real, imaginary)
        dl_ddy[middle + m] = value_change * real[m] + value * change
        dl_ddy[middle - m] = value_change * imaginary[m] + value * imaginary_change
        dl_dv[2] += g * (slope_change * real[m] + slope * change)
        dl_dv[2] += h * (slope_change * imaginary[m] + slope * imaginary_change)
        # The gradient of a power is m times the lower power, turned by i for y.
        lower, lower_imaginary = power_slope(m - 1, u, v, real, imaginary)
        a = np.float32(m) * (value_change * real[m - 1] + value * lower)
        b = np.float32(m) * (value_change * imaginary[m - 1] + value * lower_imaginary)
        dl_dv[0] += g * a + h * b
        dl_dv[1] += h * a - g * b


@device
def partial_term(k, table, real, imaginary, orders, y):
    """Add the derivative of these orders for v to the terms of (l, m)."""
    of_x, of_y, of_z = orders
    l, m, factor = TERMS[k]  # noqa: E741
    value = factor * table[l * PITCH + m + of_z]
    re, im = ZERO, ZERO
    n = of_x + of_y
    if n == 0:
        re, im = real[m], imaginary[m]
    elif n == 1 and m > 0:  # (x + iy)^m loses a power, and is turned by i for y
        value *= np.float32(m)
        re, im = real[m - 1], imaginary[m - 1]
    elif n == 2 and m > 1:
        value *= np.float32(m * (m - 1))
        re, im = real[m - 2], imaginary[m - 2]
    if of_y == 1:
        re, im = -im, re
    elif of_y == 2:
        re, im = -re, -im
    middle = l * l + l
    y[middle + m] += value * re
    if m > 0:
        y[middle - m] += value * im


@register("encoding", "SphericalHarmonics")
@dataclass(frozen=True)
class SphericalHarmonics(AbstractEncoding):
    """degree^2 features of three inputs, a direction mapped from [-1, 1] to [0, 1]."""

    n_dims: int = derived()
    degree: int = 4

    padding_first = True
    n_derivatives = 2

    def __post_init__(self):
        check(1 <= self.degree <= MAX_DEGREE, "degree", self.degree, f"1 to {MAX_DEGREE}")
        check(self.n_dims == 3, "n_dims", self.n_dims, "3: the encoding is one of directions")

    @property
    def n_outputs(self):
        return self.degree**2

    @property
    def n_terms(self) -> int:
        return self.degree * (self.degree + 1) // 2

    @cached_property
    def _prepare(self):
        """Device function (x, table, real, imaginary): fill the table of D and the powers."""
        degree, n_terms = self.degree, self.n_terms

        @device
        def prepare(x, table, real, imaginary):
            vx, vy, vz = TWO * x[0] - ONE, TWO * x[1] - ONE, TWO * x[2] - ONE
            unrolled(n_terms, legendre_term, vz, table)
            unrolled(degree, power_term, vx, vy, real, imaginary)

        return prepare

    @cached_property
    def forward(self):
        n_terms, prepare = self.n_terms, self._prepare

        @device
        def spherical_harmonics(x, params, y):  # x [3], y [degree^2]
            table = local_array(TABLE)
            real, imaginary = local_array(MAX_DEGREE), local_array(MAX_DEGREE)
            prepare(x, table, real, imaginary)
            unrolled(n_terms, value_term, table, real, imaginary, y)

        return spherical_harmonics

    @cached_property
    def backward_input(self):
        n_terms, prepare = self.n_terms, self._prepare

        @device
        def spherical_harmonics_backward(x, params, dl_dy, dl_dx):
            table, dl_dv = local_array(TABLE), local_array(3)
            real, imaginary = local_array(MAX_DEGREE), local_array(MAX_DEGREE)
            prepare(x, table, real, imaginary)
            for d in range(3):
                dl_dv[d] = ZERO
            unrolled(n_terms, gradient_term, table, real, imaginary, dl_dy, dl_dv)
            for d in range(3):
                dl_dx[d] = TWO * dl_dv[d]

        return spherical_harmonics_backward

    @cached_property
    def double_backward_input(self):
        n_terms, prepare = self.n_terms, self._prepare

        @device
        def spherical_harmonics_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            table, direction, dl_dv = local_array(TABLE), local_array(3), local_array(3)
            real, imaginary = local_array(MAX_DEGREE), local_array(MAX_DEGREE)
            prepare(x, table, real, imaginary)
            for d in range(3):
                direction[d] = TWO * dl_ddx[d]
                dl_dv[d] = ZERO
            unrolled(n_terms, hessian_term, table, real, imaginary, dl_dy, direction, dl_ddy, dl_dv)
            for d in range(3):
                dl_dx[d] = TWO * dl_dv[d]

        return spherical_harmonics_double_backward

    @cached_property
    def add_partial(self):
        n_terms, prepare = self.n_terms, self._prepare
        n_outputs = self.n_outputs

        @device
        def spherical_harmonics_add_partial(x, params, a, b, y):
            table, row = local_array(TABLE), local_array(n_outputs)
            real, imaginary = local_array(MAX_DEGREE), local_array(MAX_DEGREE)
            prepare(x, table, real, imaginary)
            orders = (a == 0) + (b == 0), (a == 1) + (b == 1), (a == 2) + (b == 2)
            scale = (TWO if a >= 0 else ONE) * (TWO if b >= 0 else ONE)
            for k in range(n_outputs):
                row[k] = ZERO
            unrolled(n_terms, partial_term, table, real, imaginary, orders, row)
            for k in range(n_outputs):
                y[k] += scale * row[k]

        return spherical_harmonics_add_partial
