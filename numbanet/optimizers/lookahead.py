"""Lookahead: every n_steps steps, slow weights move towards the fast ones, which restart there.

slow <- (1 - alpha) slow + alpha w. Zhang et al. 2019.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.optimizers.wrapper import NESTED, AbstractWrapper
from numbanet.registry import check, register


@register("optimizer", "Lookahead")
@dataclass(frozen=True)
class Lookahead(AbstractWrapper):
    """Slow weights for inference, which follow the fast ones."""

    alpha: float = 0.5
    n_steps: int = 16
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    n_own_state = 1
    keeps_weights = True
    n_own_scalars = 2  # whether the slow weights move, and alpha

    def __post_init__(self):
        check(0 <= self.alpha <= 1, "alpha", self.alpha, "a number from 0 to 1")
        check(self.n_steps >= 1, "n_steps", self.n_steps, "an integer from 1")

    @property
    def inference_row(self):
        return self.nested.n_state

    @cached_property
    def schedule(self):
        nested, first = self.nested.schedule, self.nested.n_scalars
        alpha, n_steps = np.float32(self.alpha), self.n_steps

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams, scalars)
            scalars[first] = select((t - 1) % n_steps == 0, ONE, ZERO)
            scalars[first + 1] = select(t == 1, ONE, alpha)  # at first the slow weights are w

        return schedule

    @cached_property
    def fast_weight(self):
        """Device function (i, w, state, scalars): the weight from which the nested one steps."""
        row, first = self.nested.n_state, self.nested.n_scalars

        @device
        def fast_weight(i, w, state, scalars):
            alpha = scalars[first + 1]
            slow = (ONE - alpha) * state[row, i] + alpha * w
            return select(scalars[first] > ZERO, slow, w)

        return fast_weight

    def step(self, layout: ParamLayout):
        nested, fast_weight = self.nested.step(layout), self.fast_weight
        row, first = self.nested.n_state, self.nested.n_scalars

        @device
        def lookahead(i, w, g, state, scalars, matrices):
            w = fast_weight(i, w, state, scalars)
            state[row, i] = select(scalars[first] > ZERO, w, state[row, i])
            return nested(i, w, g, state, scalars, matrices)

        return lookahead

    def summand(self, layout: ParamLayout):
        nested, fast_weight = self.nested.summand(layout), self.fast_weight

        @device
        def summand(i, w, g, state, scalars):
            return nested(i, fast_weight(i, w, state, scalars), g, state, scalars)

        return summand
