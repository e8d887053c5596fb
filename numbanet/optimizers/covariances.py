"""What optimizers of matrices keep of both sides: a covariance, and a matrix that is made of it."""

import functools
import math
from collections.abc import Iterator

import numpy as np

from numbanet.device import device
from numbanet.optimizers.layout import ParamLayout


class WithCovariances:
    """The statistics of an optimizer that has covariances of the rows and columns of matrices."""

    def n_statistics(self, layout: ParamLayout) -> int:
        return sum(2 * (rows**2 + columns**2) for rows, columns in layout.shapes)

    def statistics_of(self, view, layout: ParamLayout, statistics) -> Iterator[tuple]:
        """For each matrix the covariance L of its rows, what is made of L, R of its columns, same.

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
    """As AbstractOptimizer.limits."""
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
    """Average the covariance of the rows of g, or of its columns."""
    added = operations.empty(covariance.shape)
    operations.product(g, g, added, transpose_a=not is_left, transpose_b=is_left)
    operations.apply(average, covariance, added, scalars)
