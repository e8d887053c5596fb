"""SMAPE, the symmetric MAPE: |p - t| / ((|p| + |t|) / 2 + 0.01) / pdf.

The denominator counts as a constant.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import HALF, ONE, device
from numbanet.losses.base import EPSILON, ElementwiseLoss, absolute
from numbanet.registry import register


@register("loss", "SMAPE")
@dataclass(frozen=True)
class SMAPE(ElementwiseLoss):
    """The absolute difference, relative to the mean of prediction and target."""

    @cached_property
    def value_and_gradient(self):
        @device
        def smape(prediction, target, pdf):
            size = HALF * (abs(prediction) + abs(target)) + EPSILON
            return absolute(prediction - target, ONE / (size * pdf))

        return smape
