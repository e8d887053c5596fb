"""RandomFourier: sines and cosines of random frequencies, sin(2 pi b x) and cos(2 pi b x).

Each b is a vector of n_dims normal numbers with the standard deviation `scale`, in periods per unit
of the input. A network of them is a kernel machine whose kernel is a Gaussian of width 1 / (2 pi
scale). Rahimi and Recht 2007, Random Features for Large-Scale Kernel Machines; Tancik et al. 2020,
Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

from numbanet.device import HALF, ONE, PI, ZERO, device, less_even, sin_pi, vectorized
from numbanet.encodings.base import AbstractEncoding
from numbanet.random import Pcg32
from numbanet.registry import ConfigError, check, derived, is_number, register
from numbanet.shown import shown

MOST_NUMBERS = 8192  # of all frequencies: they are constants of a kernel
MOST_SCALE = 2.0**24
AT_ONCE = 8  # frequencies of a partition, at most


def create_frequencies(value: Any, path: str, n_dims: int) -> tuple[tuple[float, ...], ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"{path}: expected a list of lists of {n_dims}, got {shown(value)}")
    for k, row in enumerate(value):
        is_row = isinstance(row, list | tuple) and len(row) == n_dims and all(map(is_number, row))
        if not (is_row and all(abs(number) <= 16 * MOST_SCALE for number in row)):
            raise ConfigError(
                f"{path}[{k}]: expected {n_dims} numbers from -2^28 to 2^28, got {shown(row)}"
            )
    return tuple(tuple(float(np.float32(number)) for number in row) for row in value)


FREQUENCIES = {
    "convert": create_frequencies,
    "shown": "list of lists",
    "items": {"type": "array", "items": {"type": "number"}},
}


@register("encoding", "RandomFourier")
@dataclass(frozen=True)
class RandomFourier(AbstractEncoding):
    """Feature 2k is the sine of frequency k, and 2k + 1 its cosine.

    The frequencies are written with the config, and so into snapshots: what is loaded has them.
    """

    n_dims: int = derived()
    n_features: int | None = None  # 64, or two for each of the frequencies
    scale: float = 1.0  # of frequencies that are drawn
    seed: int = 1337  # of frequencies that are drawn
    frequencies: tuple[tuple[float, ...], ...] | None = field(default=None, metadata=FREQUENCIES)

    n_derivatives = 2

    def __post_init__(self):
        n, scale, given = self.n_features, self.scale, self.frequencies
        check(0 < scale <= MOST_SCALE, "scale", scale, "a number above 0, up to 2^24")
        check(self.seed >= 0, "seed", self.seed, "an integer that is not negative")
        if n is None:
            n = 64 if given is None else 2 * len(given)
            object.__setattr__(self, "n_features", n)
        most = 2 * (MOST_NUMBERS // max(self.n_dims, 1))
        option = "n_features" if given is None else "frequencies"
        allowed = f"an even number of features, 2 to {most} for {self.n_dims} inputs"
        check(2 <= n <= most and n % 2 == 0, option, n, allowed)
        if given is None:
            object.__setattr__(self, "frequencies", self._drawn(n // 2))
        is_half = n == 2 * len(self.frequencies)
        allowed = f"two for each of the {len(self.frequencies)} frequencies, or leave one of both"
        check(is_half, "n_features", n, allowed)

    def _drawn(self, n: int) -> tuple[tuple[float, ...], ...]:
        """Normal numbers by Box and Muller 1958."""
        u, v = Pcg32(self.seed).uniform(2 * n * self.n_dims).astype(np.float64).reshape(2, -1)
        normal = np.sqrt(-2 * np.log(1 - u)) * np.cos(2 * np.pi * v)
        numbers = (self.scale * normal).astype(np.float32).reshape(n, self.n_dims)
        return tuple(map(tuple, numbers.tolist()))

    @property
    def n_outputs(self) -> int:
        return self.n_features

    @cached_property
    def partition_columns(self) -> tuple[tuple[int, int], ...]:
        width = 2 * self._per_partition
        return tuple((k, k + width) for k in range(0, self.n_outputs, width))

    @property
    def _per_partition(self) -> int:
        return math.gcd(self.n_features // 2, AT_ONCE)

    @cached_property
    def _half_turns(self):
        """Device function (k, d): half turns of sine k per unit of input d."""
        n_dims = self.n_dims
        numbers = 2 * np.array(self.frequencies, np.float32).reshape(-1)

        @device
        def half_turns(k, d):
            return numbers[np.uintp(k) * np.uintp(n_dims) + np.uintp(d)]

        return half_turns

    @cached_property
    def _phase(self):
        """Device function (k, x): the argument of sin_pi for the sine k."""
        n_dims, half_turns = self.n_dims, self._half_turns

        @device
        def phase(k, x):
            total = ZERO
            for d in range(n_dims):
                total += half_turns(k, d) * x[d]
            return less_even(total)

        return phase

    @cached_property
    def _along(self):
        """Device function (k, direction): the derivative of phase k."""
        n_dims, half_turns = self.n_dims, self._half_turns

        @device
        def along(k, direction):
            total = ZERO
            for d in range(n_dims):
                total += half_turns(k, d) * direction[d]
            return PI * total

        return along

    # Functions of the features of n frequencies, the first of which is `first`.

    def _forward(self, n: int):
        phase = self._phase

        @device
        def wave(k, first, x, y):
            angle = phase(first + k, x)
            y[2 * k] = sin_pi(angle, ZERO)
            y[2 * k + 1] = sin_pi(angle, HALF)

        @device
        def waves(first, x, y):  # y [2 n]
            vectorized(n, wave, first, x, y)

        return waves

    def _backward_input(self, n: int):
        n_dims, phase, half_turns = self.n_dims, self._phase, self._half_turns
        clear_dims = clear(n_dims)

        @device
        def add_slope(k, first, x, dl_dy, dl_dx):
            angle = phase(first + k, x)
            slope = dl_dy[2 * k] * sin_pi(angle, HALF) - dl_dy[2 * k + 1] * sin_pi(angle, ZERO)
            for d in range(n_dims):
                dl_dx[d] += PI * slope * half_turns(first + k, d)

        @device
        def waves_backward(first, x, dl_dy, dl_dx):
            clear_dims(dl_dx)
            vectorized(n, add_slope, first, x, dl_dy, dl_dx)

        return waves_backward

    def _double_backward_input(self, n: int):
        n_dims, phase, half_turns, along_ = self.n_dims, self._phase, self._half_turns, self._along
        clear_dims = clear(n_dims)

        @device
        def add_curvature(k, first, x, dl_dy, dl_ddx, dl_ddy, dl_dx):
            angle, along = phase(first + k, x), along_(first + k, dl_ddx)
            sine, cosine = sin_pi(angle, ZERO), sin_pi(angle, HALF)
            curvature = along * (dl_dy[2 * k] * sine + dl_dy[2 * k + 1] * cosine)
            for d in range(n_dims):
                dl_dx[d] -= PI * curvature * half_turns(first + k, d)
            dl_ddy[2 * k] = along * cosine
            dl_ddy[2 * k + 1] = -along * sine

        @device
        def waves_double_backward(first, x, dl_dy, dl_ddx, dl_ddy, dl_dx):
            clear_dims(dl_dx)
            vectorized(n, add_curvature, first, x, dl_dy, dl_ddx, dl_ddy, dl_dx)

        return waves_double_backward

    def _add_partial(self, n: int):
        phase, half_turns = self._phase, self._half_turns

        @device
        def add_wave(k, first, x, a, b, y):
            angle, factor, quarter_turns = phase(first + k, x), ONE, ZERO
            if a >= 0:
                factor *= PI * half_turns(first + k, a)
                quarter_turns += HALF
            if b >= 0:
                factor *= PI * half_turns(first + k, b)
                quarter_turns += HALF
            y[2 * k] += factor * sin_pi(angle, quarter_turns)
            y[2 * k + 1] += factor * sin_pi(angle, quarter_turns + HALF)

        @device
        def waves_add_partial(first, x, a, b, y):
            vectorized(n, add_wave, first, x, a, b, y)

        return waves_add_partial

    @cached_property
    def forward(self):
        return of_all(self._forward(self.n_features // 2))

    @cached_property
    def backward_input(self):
        return of_all(self._backward_input(self.n_features // 2))

    @cached_property
    def double_backward_input(self):
        return of_all(self._double_backward_input(self.n_features // 2))

    @cached_property
    def partition_forward(self):
        return of_partition(self._forward(self._per_partition), self._per_partition)

    @cached_property
    def partition_backward_input(self):
        return of_partition(self._backward_input(self._per_partition), self._per_partition)

    @cached_property
    def partition_double_backward_input(self):
        return of_partition(self._double_backward_input(self._per_partition), self._per_partition)

    @cached_property
    def add_partial(self):
        return of_all(self._add_partial(self.n_features // 2))

    @cached_property
    def partition_add_partial(self):
        return of_partition(self._add_partial(self._per_partition), self._per_partition)


@cache
def clear(n_dims: int):
    """Device function (row): row = 0."""

    @device
    def clear(row):
        for d in range(n_dims):
            row[d] = ZERO

    return clear


def of_all(function):
    @device
    def of_all(x, params, *arguments):
        function(0, x, *arguments)

    return of_all


def of_partition(function, n: int):
    @device
    def of_partition(partition, x, params, *arguments):
        function(partition * n, x, *arguments)

    return of_partition
