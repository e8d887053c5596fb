"""SGD: w <- w - learning_rate (g + l2_reg w)."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import device
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.registry import check, register


@register("optimizer", "SGD")
@dataclass(frozen=True)
class SGD(AbstractOptimizer):
    """Plain gradient descent."""

    learning_rate: float = 1e-3
    l2_reg: float = 1e-8

    n_state = 0
    n_scalars = 1

    def __post_init__(self):
        for option in ("learning_rate", "l2_reg"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")

    def hyperparams(self) -> tuple[float, ...]:
        return (self.learning_rate,)

    @cached_property
    def schedule(self):
        @device
        def schedule(t, hyperparams, scalars):
            scalars[0] = hyperparams[0]

        return schedule

    def step(self, layout: ParamLayout):
        l2_reg = np.float32(self.l2_reg)

        @device
        def sgd(i, w, g, state, scalars, matrices):
            return w - scalars[0] * (g + l2_reg * w)

        return sgd
