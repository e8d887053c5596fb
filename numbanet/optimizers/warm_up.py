"""WarmUp: lets the learning rate rise along a straight line in the first n_steps steps.

After s steps its factor is start_factor + (1 - start_factor) (s + 1) / n_steps, and at most 1: no
step is lost where start_factor is 0. Goyal et al. 2017, Accurate, Large Minibatch SGD, section 2.2.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import ONE, device
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.optimizers.schedule import AbstractSchedule
from numbanet.optimizers.wrapper import NESTED
from numbanet.registry import check, register


@register("optimizer", "WarmUp")
@dataclass(frozen=True)
class WarmUp(AbstractSchedule):
    n_steps: int = 1000
    start_factor: float = 0.0
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    def __post_init__(self):
        start = self.start_factor
        check(self.n_steps >= 1, "n_steps", self.n_steps, "an integer from 1")
        check(0 <= start <= 1, "start_factor", start, "a number from 0 to 1")

    @property
    def own_hyperparams(self):
        return self.n_steps, self.start_factor

    @cached_property
    def factor(self):
        return warm_up

    def kernel_key(self):
        return WarmUp(nested=self.nested.kernel_key())


@device
def warm_up(n_done, numbers):
    n_steps, start = numbers[0], numbers[1]
    return start + (ONE - start) * min((np.float32(n_done) + ONE) / n_steps, ONE)
