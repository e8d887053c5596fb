"""Variance: t^2 / pdf (1 / p - 1 / pdf), for densities p > 0.

With samples of a density `pdf`, t^2 / (p pdf) estimates the second moment of importance sampling t
with the density p: Mueller et al. 2019, Neural Importance Sampling, section 5. A prediction below
1e-15 counts as 1e-15. Negative values are nothing unusual.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import device
from numbanet.losses.base import LEAST, ElementwiseLoss
from numbanet.registry import register


@register("loss", "Variance")
@dataclass(frozen=True)
class Variance(ElementwiseLoss):
    """The variance of importance sampling the target; needs positive predictions."""

    @cached_property
    def value_and_gradient(self):
        @device
        def variance(prediction, target, pdf):
            p = max(prediction, LEAST)
            square = target * target / pdf
            return square / p - square / pdf, -square / (p * p)

        return variance
