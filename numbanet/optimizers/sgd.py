"""SGD: w <- w - learning_rate (g + l2_reg w)."""

import math
from dataclasses import dataclass

import numpy as np

from numbanet.device import device
from numbanet.optimizers.base import BOLD, AbstractOptimizer, ParamLayout
from numbanet.registry import check, register


@register("optimizer", "SGD")
@dataclass(frozen=True)
class SGD(AbstractOptimizer):
    """Plain gradient descent."""

    learning_rate: float = 1e-3
    l2_reg: float = 1e-8

    def __post_init__(self):
        for option in ("learning_rate", "l2_reg"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")

    @property
    def is_tame(self):
        return self.learning_rate <= BOLD and self.learning_rate * self.l2_reg <= 1

    def step(self, layout: ParamLayout):
        l2_reg = np.float32(self.l2_reg)

        @device
        def sgd(i, w, g, state, scalars, matrices):
            return w - scalars[0] * (g + l2_reg * w)

        return sgd
