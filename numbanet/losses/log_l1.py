"""LogL1: ln(1 + |p - t|) / pdf. Like L1 near zero, and outliers hardly count."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ONE, ZERO, device, log_one_plus, select
from numbanet.losses.base import ElementwiseLoss
from numbanet.registry import register


@register("loss", "LogL1")
@dataclass(frozen=True)
class LogL1(ElementwiseLoss):
    """The logarithm of 1 + the absolute difference."""

    @cached_property
    def value_and_gradient(self):
        @device
        def log_l1(prediction, target, pdf):
            difference = prediction - target
            size = abs(difference)
            weight = ONE / ((ONE + size) * pdf)
            return log_one_plus(size) / pdf, select(difference < ZERO, -weight, weight)

        return log_l1
