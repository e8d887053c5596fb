"""L1: |p - t| / pdf."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ONE, device
from numbanet.losses.base import ElementwiseLoss, absolute
from numbanet.registry import register


@register("loss", "L1")
@dataclass(frozen=True)
class L1(ElementwiseLoss):
    """The absolute difference."""

    @cached_property
    def value_and_gradient(self):
        @device
        def l1(prediction, target, pdf):
            return absolute(prediction - target, ONE / pdf)

        return l1
