"""L2: (p - t)^2 / pdf."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import TWO, device
from numbanet.losses.base import ElementwiseLoss
from numbanet.registry import register


@register("loss", "L2")
@dataclass(frozen=True)
class L2(ElementwiseLoss):
    """The squared difference."""

    @cached_property
    def value_and_gradient(self):
        @device
        def l2(prediction, target, pdf):
            difference = prediction - target
            weighted = difference / pdf
            return difference * weighted, TWO * weighted

        return l2
