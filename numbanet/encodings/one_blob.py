"""OneBlob: a soft one-hot vector, the integral of a blob around x over each of n_bins bins.

The blob is the quartic 15/16 (1 - u^2)^2, u = n_bins (t - x), with the radius of one bin, on the
axis [-1, 2] wrapped around to [0, 1]. So at most three neighbouring bins are not zero.
Mueller et al. 2019, Neural Importance Sampling, section 4.3 (there with a Gaussian).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, floor_to_int, select, unrolled
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.blob import (
    add_from,
    blob,
    blob_integral,
    blob_slope,
    gather,
    gather_from,
    spread,
    spread_from,
)
from numbanet.registry import check, derived, register

MAX_BINS = 2**16  # per input
NEXT = np.int32(1)
MOST_BINS = 16  # of a partition: loops over more are not unrolled for sm_100 and newer


@register("encoding", "OneBlob")
@dataclass(frozen=True)
class OneBlob(AbstractEncoding):
    """One-blob encoding: n_bins features per dimension, which add up to 1 inside of [0, 1]."""

    n_dims: int = derived()
    n_bins: int = 16

    n_derivatives = 2

    def __post_init__(self):
        n = self.n_bins
        allowed = f"a power of two: 1, 2, 4, 8, 16, ... {MAX_BINS}"
        check(1 <= n <= MAX_BINS and n & (n - 1) == 0, "n_bins", n, allowed)

    @property
    def n_outputs(self):
        return self.n_dims * self.n_bins

    @cached_property
    def _locate(self):
        """Device function x -> (bin that holds x, distance to its left border in bins)."""
        n_bins = np.float32(self.n_bins)
        low, high = np.float32(-2 * self.n_bins), np.float32(3 * self.n_bins)

        @device
        def locate(x):
            position = min(max(x * n_bins, low), high)
            bin_of_x = floor_to_int(position)
            return bin_of_x, position - np.float32(bin_of_x)

        return locate

    @cached_property
    def _taps(self):
        """Device function that wraps a bin and its neighbours, and drops those outside [-1, 2].

        (bin, left, middle, right) -> three bins and their values; floats, so that the comparison
        with every bin of the row is one vector instruction.
        """
        mask, first, end = (np.int32(k) for k in (self.n_bins - 1, -self.n_bins, 2 * self.n_bins))

        @device
        def tap(b, value):
            is_inside = (b >= first) & (b < end)
            return np.float32(np.int32(b & mask)), select(is_inside, value, ZERO)

        @device
        def taps(b, left, middle, right):
            left_bin, left = tap(np.int32(b - NEXT), left)
            middle_bin, middle = tap(b, middle)
            right_bin, right = tap(np.int32(b + NEXT), right)
            return left_bin, middle_bin, right_bin, left, middle, right

        return taps

    @cached_property
    def _values(self):
        """Device function x -> taps of the features."""
        locate, taps = self._locate, self._taps

        @device
        def values(x):
            b, u = locate(x)
            left, right = ONE - blob_integral(u), ONE - blob_integral(ONE - u)
            return taps(b, left, ONE - left - right, right)

        return values

    @cached_property
    def _derivatives(self):
        """Device function x -> taps of the derivatives of the features."""
        locate, taps, n_bins = self._locate, self._taps, np.float32(self.n_bins)

        @device
        def derivatives(x):
            b, u = locate(x)
            left, right = -n_bins * blob(u), n_bins * blob(ONE - u)
            return taps(b, left, -left - right, right)

        return derivatives

    @cached_property
    def _second_derivatives(self):
        """Device function x -> taps of the second derivatives of the features."""
        locate, taps, square = self._locate, self._taps, np.float32(self.n_bins**2)

        @device
        def second_derivatives(x):
            b, u = locate(x)
            left, right = -square * blob_slope(u), -square * blob_slope(ONE - u)
            return taps(b, left, -left - right, right)

        return second_derivatives

    @cached_property
    def forward(self):
        n_dims, n_bins, values = self.n_dims, self.n_bins, self._values

        @device
        def dimension(d, x, y):
            spread(values(x[d]), ONE, y[d * n_bins : (d + 1) * n_bins])

        @device
        def one_blob(x, params, y):  # x [n_dims], y [n_dims * n_bins]
            unrolled(n_dims, dimension, x, y)

        return one_blob

    @cached_property
    def backward_input(self):
        n_dims, n_bins, derivatives = self.n_dims, self.n_bins, self._derivatives

        @device
        def dimension(d, x, dl_dy, dl_dx):
            dl_dx[d] = gather(derivatives(x[d]), dl_dy[d * n_bins : (d + 1) * n_bins])

        @device
        def one_blob_backward(x, params, dl_dy, dl_dx):
            unrolled(n_dims, dimension, x, dl_dy, dl_dx)

        return one_blob_backward

    @cached_property
    def double_backward_input(self):
        n_dims, n_bins = self.n_dims, self.n_bins
        derivatives, second_derivatives = self._derivatives, self._second_derivatives

        @device
        def dimension(d, x, dl_dy, dl_ddx, dl_ddy, dl_dx):
            first, stop = d * n_bins, (d + 1) * n_bins
            dl_dx[d] = dl_ddx[d] * gather(second_derivatives(x[d]), dl_dy[first:stop])
            spread(derivatives(x[d]), dl_ddx[d], dl_ddy[first:stop])

        @device
        def one_blob_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            unrolled(n_dims, dimension, x, dl_dy, dl_ddx, dl_ddy, dl_dx)

        return one_blob_double_backward

    # A partition is some bins of one dimension. Arrays are not indexed with a dimension that is
    # chosen at run time: CUDA would put them into local memory.

    _partition_width = property(lambda self: min(self.n_bins, MOST_BINS))

    @cached_property
    def partition_columns(self) -> tuple[tuple[int, int], ...]:
        width = self._partition_width
        return tuple((k, k + width) for k in range(0, self.n_outputs, width))

    @cached_property
    def _place(self):
        """Device function partition -> (its dimension, its first bin)."""
        width = np.uint32(self._partition_width)
        per_dim = np.uint32(self.n_bins // self._partition_width)

        @device
        def place(partition):
            partition = np.uint32(partition)
            return np.uint32(partition // per_dim), np.float32((partition % per_dim) * width)

        return place

    @cached_property
    def _pick(self):
        """Device function (d, row) -> row[d]."""
        n_dims = self.n_dims

        @device
        def pick(d, row):  # row [n_dims]
            value = row[0]
            for k in range(1, n_dims):
                value = select(d == np.uint32(k), row[k], value)
            return value

        return pick

    @cached_property
    def _put(self):
        """Device function (d, value, row): row[d] = value, 0 elsewhere."""
        n_dims = self.n_dims

        @device
        def put(d, value, row):  # row [n_dims]
            for k in range(n_dims):
                row[k] = select(d == np.uint32(k), value, ZERO)

        return put

    @cached_property
    def partition_forward(self):
        place, pick, values = self._place, self._pick, self._values

        @device
        def one_blob_bins(partition, x, params, y):
            d, first = place(partition)
            spread_from(first, values(pick(d, x)), ONE, y)

        return one_blob_bins

    @cached_property
    def partition_backward_input(self):
        place, pick, put, derivatives = self._place, self._pick, self._put, self._derivatives

        @device
        def one_blob_bins_backward(partition, x, params, dl_dy, dl_dx):
            d, first = place(partition)
            put(d, gather_from(first, derivatives(pick(d, x)), dl_dy), dl_dx)

        return one_blob_bins_backward

    @cached_property
    def partition_double_backward_input(self):
        place, pick, put = self._place, self._pick, self._put
        derivatives, second_derivatives = self._derivatives, self._second_derivatives

        @device
        def one_blob_bins_double_backward(partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            d, first = place(partition)
            x_d, along = pick(d, x), pick(d, dl_ddx)
            put(d, along * gather_from(first, second_derivatives(x_d), dl_dy), dl_dx)
            spread_from(first, derivatives(x_d), along, dl_ddy)

        return one_blob_bins_double_backward

    @cached_property
    def _add_partial_of(self):
        """Device function (d, first, x, a, b, y): add_partial for some bins of input d, x."""
        values, derivatives, second_derivatives = (
            self._values, self._derivatives, self._second_derivatives,
        )  # fmt: skip

        @device
        def add_partial_of(d, first, x, a, b, y):
            if a < 0:
                add_from(first, values(x), y)
            elif a == d and b < 0:
                add_from(first, derivatives(x), y)
            elif a == d and b == d:
                add_from(first, second_derivatives(x), y)

        return add_partial_of

    @cached_property
    def add_partial(self):
        n_dims, n_bins, add_partial_of = self.n_dims, self.n_bins, self._add_partial_of

        @device
        def dimension(d, x, a, b, y):
            add_partial_of(d, ZERO, x[d], a, b, y[d * n_bins : (d + 1) * n_bins])

        @device
        def one_blob_add_partial(x, params, a, b, y):
            unrolled(n_dims, dimension, x, a, b, y)

        return one_blob_add_partial

    @cached_property
    def partition_add_partial(self):
        place, pick, add_partial_of = self._place, self._pick, self._add_partial_of

        @device
        def one_blob_bins_add_partial(partition, x, params, a, b, y):
            d, first = place(partition)
            add_partial_of(d, first, pick(d, x), a, b, y)

        return one_blob_bins_add_partial
