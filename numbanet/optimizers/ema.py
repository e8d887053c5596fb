"""EMA: for inference, the exponential moving average of the weights, without its initial bias.

After step t, average <- (decay (1 - decay^(t-1)) average + (1 - decay) w) / (1 - decay^t).
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import ONE, device, exp_minus_one
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout, log_decay
from numbanet.optimizers.wrapper import NESTED, AbstractWrapper, inference_weight
from numbanet.registry import check, register


@register("optimizer", "EMA")
@dataclass(frozen=True)
class EMA(AbstractWrapper):
    """Averages what the nested optimizer uses for inference."""

    decay: float = 0.99
    full_precision: bool = False  # here the average is float32 either way
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    n_own_state = 1
    n_own_scalars = 2  # weights of the average and of w

    def __post_init__(self):
        check(0 <= self.decay < 1, "decay", self.decay, "a number in [0, 1)")

    @property
    def inference_row(self):
        return self.nested.n_state

    @cached_property
    def schedule(self):
        nested, first = self.nested.schedule, self.nested.n_scalars
        decay, rest = np.float32(self.decay), np.float32(1 - self.decay)
        log = np.float32(log_decay(self.decay))

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams, scalars)
            steps = np.float32(t)
            total = exp_minus_one(log * steps)
            scalars[first] = decay * exp_minus_one(log * (steps - ONE)) / total
            scalars[first + 1] = -rest / total

        return schedule

    def step(self, layout: ParamLayout):
        nested, for_inference = self.nested.step(layout), inference_weight(self.nested)
        row, first = self.nested.n_state, self.nested.n_scalars

        @device
        def ema(i, w, g, state, scalars, matrices):
            w = nested(i, w, g, state, scalars, matrices)
            kept = scalars[first] * state[row, i]
            state[row, i] = kept + scalars[first + 1] * for_inference(i, w, state)
            return w

        return ema
