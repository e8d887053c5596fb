"""CosineDecay: lets the learning rate fall along half a period of a cosine.

After s steps its factor is 1 before decay_start, then end_factor + (1 - end_factor) (1 + cos(pi u))
/ 2 with u = (s - decay_start) / n_steps, and end_factor from u = 1 on.
Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts, without restarts.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import HALF, ONE, ZERO, device, sin_pi
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.optimizers.schedule import AbstractSchedule
from numbanet.optimizers.wrapper import NESTED
from numbanet.registry import check, register


@register("optimizer", "CosineDecay")
@dataclass(frozen=True)
class CosineDecay(AbstractSchedule):
    n_steps: int = 10_000  # of the decay
    decay_start: int = 0  # steps before it
    end_factor: float = 0.0
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    def __post_init__(self):
        start, end = self.decay_start, self.end_factor
        check(self.n_steps >= 1, "n_steps", self.n_steps, "an integer from 1")
        check(start >= 0, "decay_start", start, "an integer that is not negative")
        check(0 <= end <= 1, "end_factor", end, "a number from 0 to 1")

    @property
    def own_hyperparams(self):
        return self.n_steps, self.decay_start, self.end_factor

    @cached_property
    def factor(self):
        return cosine_decay

    def kernel_key(self):
        return CosineDecay(nested=self.nested.kernel_key())


@device
def cosine_decay(n_done, numbers):
    n_steps, start, end = numbers[0], numbers[1], numbers[2]
    u = min(max((np.float32(n_done) - start) / n_steps, ZERO), ONE)
    cosine = sin_pi(HALF * u, HALF)  # its square is (1 + cos(pi u)) / 2
    return end + (ONE - end) * cosine * cosine
