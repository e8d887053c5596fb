"""Interface of losses: value and gradient, per element or per row.

Neither divides by the number of elements nor applies the loss scale: the engine does both, once.
"""

from abc import ABC, abstractmethod
from functools import cache

import numpy as np

from numbanet.device import ONE, ZERO, belongs_to, device, select

EPSILON = np.float32(0.01)  # of the denominators of relative losses, which count as constants
LEAST = np.float32(1e-15)  # of predictions that must be positive


@device
def absolute(difference, weight):  # value and gradient; the latter is plus at 0, like copysign
    return abs(difference) * weight, select(difference < ZERO, -weight, weight)


class AbstractLoss(ABC):
    """Loss of a sample's row of predictions, compared with its row of targets."""

    @abstractmethod
    def row(self, n: int, has_pdf: bool):
        """Device function (prediction, target, pdf, dl_dprediction) -> value, for rows of n.

        Without has_pdf the density is 1 and `pdf` is not read.

        Raises:
            ConfigError: the loss cannot take rows of n.
        """

    @cache  # noqa: B019 (components are few and live as long as the program)
    def rows(self, n: int, has_pdf: bool):
        """Device function (n_rows, predictions, targets, pdf, dl_dpredictions) -> sum of values.

        The batch form of `row`: rows of n lie one after the other in 1-D arrays.
        """
        row = self.row(n, has_pdf)

        @device
        @belongs_to(f"{type(self).__name__}.row")
        def loss_rows(n_rows, predictions, targets, pdf, dl_dpredictions):
            total = ZERO
            for start in range(0, n_rows * n, n):
                stop = start + n
                total += row(
                    predictions[start:stop], targets[start:stop], pdf[start:stop],
                    dl_dpredictions[start:stop],
                )  # fmt: skip
            return total

        return loss_rows


class ElementwiseLoss(AbstractLoss):
    """Loss that is a sum over elements."""

    @property
    @abstractmethod
    def value_and_gradient(self):
        """Device function (prediction, target, pdf) -> (value, gradient) of one element."""

    @cache  # noqa: B019 (components are few and live as long as the program)
    def row(self, n: int, has_pdf: bool):
        rows = self.rows(n, has_pdf)

        @device
        def loss_row(prediction, target, pdf, dl_dprediction):
            return rows(1, prediction, target, pdf, dl_dprediction)

        return loss_row

    @cache  # noqa: B019
    def rows(self, n: int, has_pdf: bool):
        value_and_gradient = self.value_and_gradient

        # One loop over all elements: one over the few outputs of a row makes no vectors.
        @device
        @belongs_to(f"{type(self).__name__}.value_and_gradient")
        def loss_rows(n_rows, predictions, targets, pdf, dl_dpredictions):
            total = ZERO
            for k in range(n_rows * n):
                density = pdf[k] if has_pdf else ONE
                value, gradient = value_and_gradient(predictions[k], targets[k], density)
                dl_dpredictions[k] = gradient
                total += value
            return total

        return loss_rows
