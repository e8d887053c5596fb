"""L1: |p - t| / pdf."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ONE, ZERO, device, select
from numbanet.losses.base import ElementwiseLoss
from numbanet.registry import register


@register("loss", "L1")
@dataclass(frozen=True)
class L1(ElementwiseLoss):
    """The absolute difference."""

    @cached_property
    def value_and_gradient(self):
        @device
        def l1(prediction, target, pdf):
            difference = prediction - target
            weight = ONE / pdf
            # Plus where the difference is 0, like copysign.
            return abs(difference) * weight, select(difference < ZERO, -weight, weight)

        return l1
