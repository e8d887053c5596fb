"""CrossEntropy: -t ln(p) / pdf, for predictions p > 0 that are probabilities.

With samples of a density `pdf` it estimates the divergence between the densities t and p, as in
Mueller et al. 2019, Neural Importance Sampling, section 5. A prediction below 1e-15 counts as
1e-15.
"""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import device, log
from numbanet.losses.base import LEAST, ElementwiseLoss
from numbanet.registry import register


@register("loss", "CrossEntropy")
@dataclass(frozen=True)
class CrossEntropy(ElementwiseLoss):
    """The cross entropy of target and prediction; needs positive predictions."""

    @cached_property
    def value_and_gradient(self):
        @device
        def cross_entropy(prediction, target, pdf):
            p = max(prediction, LEAST)
            weighted = target / pdf
            return -weighted * log(p), -weighted / p

        return cross_entropy
