"""Encodings of waves: features of one input dimension each, at frequencies that double."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from numbanet.device import ZERO, belongs_to, device, local_array, unrolled, vectorized
from numbanet.encodings.base import AbstractEncoding
from numbanet.registry import check


@dataclass(frozen=True)
class Wave:
    """Device functions of the features of one dimension, of which j is one and x is prepared.

    Args:
        prepare: x -> the x of the other functions.
        value: (j, x, row) writes feature j to row[j].
        slope: (j, x, factor, row) writes its derivative, times factor, to row[j].
        add_gradient: (j, x, row, total) adds row[j] times its derivative to total[0].
        add_curvature: (j, x, row, total) adds row[j] times its second derivative to total[0].
        add_derivative: (j, x, order, row) adds its derivative of an order, 0 to 2, to row[j].
    """

    prepare: Callable
    value: Callable
    slope: Callable
    add_gradient: Callable
    add_curvature: Callable
    add_derivative: Callable


class AbstractWaves(AbstractEncoding):
    """The same waves in each dimension; subclasses are frozen dataclasses of these fields."""

    n_dims: int
    n_frequencies: int
    wave: ClassVar[Wave]
    n_features_per_frequency: ClassVar[int]

    def __post_init__(self):
        check(1 <= self.n_frequencies <= 32, "n_frequencies", self.n_frequencies, "1 to 32")

    @property
    def _width(self):
        return self.n_frequencies * self.n_features_per_frequency

    @property
    def n_outputs(self):
        return self.n_dims * self._width

    @cached_property
    def forward(self):
        n_dims, width, wave = self.n_dims, self._width, self.wave
        prepare, value = wave.prepare, wave.value

        @device
        def dimension(d, x, y):
            vectorized(width, value, prepare(x[d]), y[d * width : (d + 1) * width])

        @device
        @belongs_to(f"{type(self).__name__}.forward")
        def forward(x, params, y):  # x [n_dims], y [n_dims * width]
            unrolled(n_dims, dimension, x, y)

        return forward

    @cached_property
    def backward_input(self):
        n_dims, width, wave = self.n_dims, self._width, self.wave
        prepare, add_gradient = wave.prepare, wave.add_gradient

        @device
        def dimension(d, x, dl_dy, dl_dx):
            total = local_array(1)
            total[0] = ZERO
            vectorized(
                width, add_gradient, prepare(x[d]), dl_dy[d * width : (d + 1) * width], total
            )
            dl_dx[d] = total[0]

        @device
        @belongs_to(f"{type(self).__name__}.backward_input")
        def backward_input(x, params, dl_dy, dl_dx):
            unrolled(n_dims, dimension, x, dl_dy, dl_dx)

        return backward_input

    @cached_property
    def double_backward_input(self):
        n_dims, width, wave = self.n_dims, self._width, self.wave
        prepare, slope, add_curvature = wave.prepare, wave.slope, wave.add_curvature

        @device
        def dimension(d, x, dl_dy, dl_ddx, dl_ddy, dl_dx):
            row = dl_dy[d * width : (d + 1) * width]
            total = local_array(1)
            total[0] = ZERO
            prepared = prepare(x[d])
            vectorized(width, add_curvature, prepared, row, total)
            dl_dx[d] = dl_ddx[d] * total[0]
            vectorized(width, slope, prepared, dl_ddx[d], dl_ddy[d * width : (d + 1) * width])

        @device
        @belongs_to(f"{type(self).__name__}.double_backward_input")
        def double_backward_input(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            unrolled(n_dims, dimension, x, dl_dy, dl_ddx, dl_ddy, dl_dx)

        return double_backward_input

    @cached_property
    def add_partial(self):
        n_dims, width, wave = self.n_dims, self._width, self.wave
        prepare, add_derivative = wave.prepare, wave.add_derivative

        @device
        def dimension(d, x, a, b, y):
            if a < 0 or (a == d and (b < 0 or b == d)):
                order = (a >= 0) + (b >= 0)
                row = y[d * width : (d + 1) * width]
                vectorized(width, add_derivative, prepare(x[d]), order, row)

        @device
        @belongs_to(f"{type(self).__name__}.add_partial")
        def add_partial(x, params, a, b, y):
            unrolled(n_dims, dimension, x, a, b, y)

        return add_partial
