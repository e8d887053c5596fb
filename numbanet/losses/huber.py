"""Huber: d^2 / 2 for |d| <= delta, delta (|d| - delta / 2) beyond, d = p - t; divided by pdf.

Huber 1964, Robust Estimation of a Location Parameter.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import HALF, device
from numbanet.losses.base import ElementwiseLoss
from numbanet.registry import check, register


@register("loss", "Huber")
@dataclass(frozen=True)
class Huber(ElementwiseLoss):
    """Half the squared difference, continued by straight lines."""

    delta: float = 1.0  # the difference where the lines begin

    def __post_init__(self):
        check(0 < self.delta < math.inf, "delta", self.delta, "a positive number")

    @cached_property
    def value_and_gradient(self):
        delta = np.float32(self.delta)

        @device
        def huber(prediction, target, pdf):
            difference = prediction - target
            slope = min(max(difference, -delta), delta)
            return slope * (difference - HALF * slope) / pdf, slope / pdf

        return huber
