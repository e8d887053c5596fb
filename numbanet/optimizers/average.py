"""Average: for inference, the mean of the weights after the last n_samples steps."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.optimizers.wrapper import NESTED, AbstractWrapper
from numbanet.registry import check, register


@register("optimizer", "Average")
@dataclass(frozen=True)
class Average(AbstractWrapper):
    """Keeps n_samples copies of the weights; before n_samples steps, averages all there are."""

    n_samples: int = 128
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    keeps_weights = True
    touches_all_state = False  # of the samples, one
    n_own_scalars = 3  # the sample to replace, 1 / number of samples, whether it replaces one

    def __post_init__(self):
        check(1 <= self.n_samples < 2**24, "n_samples", self.n_samples, "an integer from 1")

    @property
    def n_own_state(self):
        return self.n_samples + 1

    @property
    def inference_row(self):
        return self.n_state - 1

    @cached_property
    def schedule(self):
        nested, first = self.nested.schedule, self.nested.n_scalars
        n_samples = self.n_samples

        @device
        def schedule(t, hyperparams, scalars):
            nested(t, hyperparams, scalars)
            scalars[first] = np.float32((t - 1) % n_samples)
            scalars[first + 1] = ONE / np.float32(min(t, n_samples))
            scalars[first + 2] = select(t > n_samples, ONE, ZERO)

        return schedule

    def step(self, layout: ParamLayout):
        nested, row = self.nested.step(layout), self.inference_row
        first_sample, first = self.nested.n_state, self.nested.n_scalars

        @device
        def average(i, w, g, state, scalars, matrices):
            w = nested(i, w, g, state, scalars, matrices)
            sample = np.uintp(scalars[first]) + np.uintp(first_sample)
            mean = state[row, i]
            replaced = select(scalars[first + 2] > ZERO, state[sample, i], mean)
            state[row, i] = mean + (w - replaced) * scalars[first + 1]
            state[sample, i] = w
            return w

        return average
