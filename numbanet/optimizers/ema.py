"""EMA: for inference, the exponential moving average of the weights, without its initial bias.

After step t, average <- (decay (1 - decay^(t-1)) average + (1 - decay) w) / (1 - decay^t).
"""

from dataclasses import dataclass, field
from functools import cached_property

from numbanet.device import device
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout, debiased_average
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
    keeps_weights = True
    n_own_scalars = 2  # weights of the average and of w

    def __post_init__(self):
        check(0 <= self.decay < 1, "decay", self.decay, "a number in [0, 1)")

    @property
    def inference_row(self):
        return self.nested.n_state

    @cached_property
    def schedule(self):
        nested, first = self.nested.schedule, self.nested.n_scalars
        average = debiased_average(self.decay)

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams, scalars)
            scalars[first], scalars[first + 1] = average(t)

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
