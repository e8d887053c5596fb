"""Covariances of the rows and columns of matrices, each with a matrix that is computed from it."""

import functools
import math
from collections.abc import Iterator

import numpy as np

from numbanet.device import device
from numbanet.optimizers.layout import ParamLayout


class WithCovariances:
    """Statistics of an optimizer that averages L of G G^T and R of G^T G for each matrix G."""

    def n_statistics(self, layout: ParamLayout) -> int:
        return sum(2 * (rows**2 + columns**2) for rows, columns in layout.shapes)

    def statistics_of(self, view, layout: ParamLayout, statistics) -> Iterator[tuple]:
        """Views of the statistics of each matrix: L, the matrix computed from L, R, that from R.

        Args:
            view: of the operations on matrices of a target, or numpy_view.
        """
        first = 0
        for shape in layout.shapes:
            views = []
            for n in (shape[0], shape[0], shape[1], shape[1]):
                views.append(view(statistics, first, (n, n)))
                first += n * n
            yield tuple(views)


def numpy_view(numbers: np.ndarray, first: int, shape: tuple[int, int]) -> np.ndarray:
    return numbers[first : first + math.prod(shape)].reshape(shape)


def limits_of_covariance(covariance: np.ndarray, most: float) -> Iterator[tuple]:
    """Limits of a covariance, as AbstractOptimizer.limits yields them."""
    yield "variances", covariance.diagonal(), 0, math.inf
    yield "covariances", covariance, -most, most


@functools.cache
def average_with(keep: int, add: int):
    """Device function (i, j, average, value, scalars), by the scalars of these numbers."""

    @device
    def average_with(i, j, average, value, scalars):
        average[i, j] = scalars[keep] * average[i, j] + scalars[add] * value[i, j]

    return average_with


def add_covariance(operations, covariance, g, scalars, average, is_left: bool) -> None:
    """Add g g^T to the average of the rows' covariance, or g^T g to that of the columns'."""
    added = operations.empty(covariance.shape)
    operations.product(g, g, added, transpose_a=not is_left, transpose_b=is_left)
    operations.apply(average, covariance, added, scalars)
