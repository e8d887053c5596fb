"""RelativeL2: (p - t)^2 / (p^2 + 0.01) / pdf, the default loss.

The normalisation counts as a constant: its gradient would push bright predictions up.
Lehtinen et al. 2018, Noise2Noise, section 3.3.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import TWO, device
from numbanet.losses.base import EPSILON, ElementwiseLoss
from numbanet.registry import register


@register("loss", "RelativeL2")
@dataclass(frozen=True)
class RelativeL2(ElementwiseLoss):
    """The squared difference, relative to the square of the prediction."""

    @cached_property
    def value_and_gradient(self):
        @device
        def relative_l2(prediction, target, pdf):
            difference = prediction - target
            weighted = difference / ((prediction * prediction + EPSILON) * pdf)
            return difference * weighted, TWO * weighted

        return relative_l2
