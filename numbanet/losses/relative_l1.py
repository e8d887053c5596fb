"""RelativeL1: |p - t| / (|p| + 0.01) / pdf; the denominator counts as a constant."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ONE, device
from numbanet.losses.base import EPSILON, ElementwiseLoss, absolute
from numbanet.registry import register


@register("loss", "RelativeL1")
@dataclass(frozen=True)
class RelativeL1(ElementwiseLoss):
    """The absolute difference, relative to the prediction."""

    @cached_property
    def value_and_gradient(self):
        @device
        def relative_l1(prediction, target, pdf):
            return absolute(prediction - target, ONE / ((abs(prediction) + EPSILON) * pdf))

        return relative_l1
