"""MAPE, the mean absolute percentage error: |p - t| / (|t| + 0.01) / pdf."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ONE, device
from numbanet.losses.base import EPSILON, ElementwiseLoss, absolute
from numbanet.registry import register


@register("loss", "MAPE")
@dataclass(frozen=True)
class MAPE(ElementwiseLoss):
    """The absolute difference, relative to the target."""

    @cached_property
    def value_and_gradient(self):
        @device
        def mape(prediction, target, pdf):
            return absolute(prediction - target, ONE / ((abs(target) + EPSILON) * pdf))

        return mape
