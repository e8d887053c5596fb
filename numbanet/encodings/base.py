"""Interface of encodings: per-sample device functions, and batch forms built from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, belongs_to, device
from numbanet.encodings.partial import PartialDerivatives, partial_of_feature
from numbanet.encodings.parts import Constant, Part, of_all
from numbanet.quantization import Quantized


class AbstractEncoding(PartialDerivatives, ABC):
    """Map from n_dims inputs to n_outputs features.

    Subclasses are frozen dataclasses with a derived field `n_dims`. Their device functions work on
    one sample and on 1-D float32 views.
    """

    n_dims: int
    n_params = 0
    padding_value = 1.0
    padding_first = False
    required_output_alignment = 1
    needs_whole_batch = False  # whether backward_params_rows must see all rows of a batch at once
    reads_numbers = False  # whether its functions take `params` with numbers: see kernel_key
    numbers: tuple[int, ...] = ()  # left out by kernel_key
    grid_dims: tuple[int, ...] = ()  # inputs that are read by a grid, which covers [0, 1] in each
    quantized: tuple[Quantized, ...] = ()  # parameters that kernels read in few bits
    constants: tuple[Constant, ...] = ()  # features that are the same for all inputs, in no part
    has_edges = False  # whether its parameters are tables on grids, with the functions of `Grid`

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of features per sample, without padding."""

    @property
    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of the parameters, in their order."""
        return {"params": (self.n_params,)} if self.n_params else {}

    def padded(self, n_columns: int) -> AbstractEncoding:
        """Encoding with constant features beside its own, n_columns in all.

        Where they are and what they are is tiny-cuda-nn's rule: `padding_first`, `padding_value`.
        """
        from numbanet.encodings.padded import Padded  # which derives from this class

        return self if n_columns == self.n_outputs else Padded(self, n_columns)

    def kernel_key(self) -> AbstractEncoding:
        """Encoding that the CPU compiles in place of this one and of similar ones.

        What sets them apart is in `numbers`. Where `reads_numbers`, a pair (parameters, numbers)
        stands in every function for the parameters.
        """
        return self

    def placed(self, first_param: int) -> AbstractEncoding:
        """Same encoding for parameters that begin at this place among those of a model.

        Only those at even places can be accessed in pairs.
        """
        return self

    @property
    def parts(self) -> tuple[Part, ...]:
        """Encodings that together compute all features that are not constant.

        Each can have its own kernel.
        """
        return (Part(self),)

    @property
    @abstractmethod
    def forward(self):
        """(x, params, y): write the features of x to y."""

    @property
    @abstractmethod
    def backward_input(self):
        """(x, params, dl_dy, dl_dx): write the gradient with respect to x."""

    # (x, params, dl_dy, dl_dparams): add the gradient with respect to the parameters.
    backward_params = None

    @property
    @abstractmethod
    def double_backward_input(self):
        """(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx): the second derivative.

        Given dl_ddx = dL/d(dL/dx), write dl_ddy = dL/d(dl_dy) and the part of dL/dx that comes
        through backward_input.
        """

    # (x, params, dl_dy, dl_ddx, dl_dparams): add the gradient through backward_input.
    double_backward_params = None

    @property
    def partition_columns(self) -> tuple[tuple[int, int], ...]:
        """Range of the features of each partition: the first, and the last + 1.

        The features of one partition have parameters that no other partition reads, so that the
        gradients of partitions can be computed side by side without atomics.
        """
        return ((0, self.n_outputs),)

    @property
    def partition_width(self) -> int:
        """Number of features of each partition, equal for all."""
        (width,) = {stop - start for start, stop in self.partition_columns}
        return width

    # Where the parameters of the first, second ... partition end, if they lie in order: then so few
    # of the first ones can have their gradients in memory that is fast and small.
    partition_param_ends: tuple[int, ...] = ()

    @property
    def partition_additions(self) -> tuple[int, ...]:
        """Additions of each partition to the same gradient for one sample, at most.

        Where partition_param_ends names parameters, it adds no more than a feature's gradient.
        """
        return (1,) * len(self.partition_columns)

    def initial_params(self, rng) -> np.ndarray:
        """Initial values, float32 [n_params]; advances `rng` by n_params draws."""
        return np.zeros(self.n_params, np.float32)

    # The functions of one partition are what CUDA kernels call: a thread block works on one sample
    # after another of the same partition, whose parameters then stay in the caches. Here there is
    # one partition; an encoding with several overrides all of them.

    # (partition, x, params, y): write the features of the partition to y.
    partition_forward = of_all("forward")

    def partition_forward_pairs(self, precision: str, first_param: int) -> Callable | None:
        """Device function (partition, x, params, words): write features as pairs of halves.

        Words and params are of `precision`, and params begin at `first_param` of the model's. None
        where there is no such function. CUDA only; all lanes of a warp call it together.
        """
        return None

    pairs_of_float32 = False  # whether that function takes params in float32 too, and rounds them

    # (partition, i, n, x, params, dl_dy, dl_dparams): backward_params for sample i of n.
    partition_backward_params = of_all("backward_params", numbers_samples=True)
    # (partition, x, params, dl_dy, dl_dx): write the partition's share of dl_dx.
    partition_backward_input = of_all("backward_input")
    # (partition, x, params, dl_dy, dl_ddx, dl_ddy, dl_dx): as double_backward_input.
    partition_double_backward_input = of_all("double_backward_input")
    # (partition, x, params, dl_dy, dl_ddx, dl_dparams): as double_backward_params.
    partition_double_backward_params = of_all("double_backward_params")

    # The batch forms below are what the CPU loops call. An encoding whose memory traffic depends
    # on the order of the work overrides them.

    @cached_property
    def forward_rows(self):
        """(xs, first, last, params, ys, row, column): rows of xs to ys[row:, column:]."""
        forward, n_outputs = self.forward, self.n_outputs

        @device
        @belongs_to(f"{type(self).__name__}.forward")
        def forward_rows(xs, first, last, params, ys, row, column):
            # An unsigned index is not tested for counting from the end.
            for i in range(np.uintp(last - first)):
                y = ys[np.uintp(row) + i, column : column + n_outputs]
                forward(xs[np.uintp(first) + i], params, y)

        return forward_rows

    @cached_property
    def backward_params_rows(self):
        """(partition, xs, params, dl_dys, dl_dparams): dl_dys of that partition."""
        backward_params = self.backward_params
        if backward_params is None:
            return None

        @device
        @belongs_to(f"{type(self).__name__}.backward_params")
        def backward_params_rows(partition, xs, params, dl_dys, dl_dparams):
            for i in range(xs.shape[0]):
                backward_params(xs[i], params, dl_dys[i], dl_dparams)

        return backward_params_rows

    @cached_property
    def backward_input_rows(self):
        """(xs, first, last, params, dl_dys, dl_dxs): write rows of dl_dxs."""
        backward_input = self.backward_input

        @device
        @belongs_to(f"{type(self).__name__}.backward_input")
        def backward_input_rows(xs, first, last, params, dl_dys, dl_dxs):
            for i in range(np.uintp(first), np.uintp(last)):
                backward_input(xs[i], params, dl_dys[i], dl_dxs[i])

        return backward_input_rows

    @cached_property
    def double_backward_params_rows(self):
        """(partition, xs, params, dl_dys, dl_ddxs, dl_dparams): as backward_params_rows."""
        double_backward_params = self.double_backward_params
        if double_backward_params is None:
            return None

        @device
        @belongs_to(f"{type(self).__name__}.double_backward_params")
        def double_backward_params_rows(partition, xs, params, dl_dys, dl_ddxs, dl_dparams):
            for i in range(xs.shape[0]):
                double_backward_params(xs[i], params, dl_dys[i], dl_ddxs[i], dl_dparams)

        return double_backward_params_rows


class ElementwiseEncoding(AbstractEncoding):
    """Encoding whose features depend on one input each: first those of x[0], and so on."""

    n_features: int  # per input
    n_derivatives = 2
    add_partial = cached_property(partial_of_feature)

    @property
    def n_outputs(self):
        return self.n_dims * self.n_features

    @property
    @abstractmethod
    def feature(self):
        """Device function (x, k) -> (value, first, second derivative): feature k of an input."""

    @cached_property
    def forward(self):
        n_dims, n_features, feature = self.n_dims, self.n_features, self.feature

        @device
        @belongs_to(f"{type(self).__name__}.feature")
        def elementwise(x, params, y):  # x [n_dims], y [n_dims * n_features]
            for d in range(n_dims):
                for k in range(n_features):
                    y[d * n_features + k] = feature(x[d], k)[0]

        return elementwise

    @cached_property
    def backward_input(self):
        n_dims, n_features, feature = self.n_dims, self.n_features, self.feature

        @device
        @belongs_to(f"{type(self).__name__}.feature")
        def elementwise_backward(x, params, dl_dy, dl_dx):
            for d in range(n_dims):
                total = ZERO
                for k in range(n_features):
                    total += feature(x[d], k)[1] * dl_dy[d * n_features + k]
                dl_dx[d] = total

        return elementwise_backward

    @cached_property
    def backward_input_rows(self):
        n_dims, n_features, feature = self.n_dims, self.n_features, self.feature

        @device
        @belongs_to(f"{type(self).__name__}.feature")
        def elementwise_backward_rows(xs, first, last, params, dl_dys, dl_dxs):
            # As one row of all inputs, which the compiler vectorises over the samples too.
            x, dl_dy, dl_dx = xs.reshape(-1), dl_dys.reshape(-1), dl_dxs.reshape(-1)
            for j in range(np.uintp(first * n_dims), np.uintp(last * n_dims)):
                total = ZERO
                for k in range(n_features):
                    total += feature(x[j], k)[1] * dl_dy[j * np.uintp(n_features) + np.uintp(k)]
                dl_dx[j] = total

        return elementwise_backward_rows

    @cached_property
    def double_backward_input(self):
        n_dims, n_features, feature = self.n_dims, self.n_features, self.feature

        @device
        @belongs_to(f"{type(self).__name__}.feature")
        def elementwise_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            for d in range(n_dims):
                total = ZERO
                for k in range(n_features):
                    _, first, second = feature(x[d], k)
                    total += second * dl_dy[d * n_features + k]
                    dl_ddy[d * n_features + k] = dl_ddx[d] * first
                dl_dx[d] = dl_ddx[d] * total

        return elementwise_double_backward
