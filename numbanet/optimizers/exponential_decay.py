"""ExponentialDecay: multiplies the learning rate by a factor at regular intervals."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import device, exp
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, log_decay
from numbanet.optimizers.schedule import AbstractSchedule
from numbanet.optimizers.wrapper import NESTED
from numbanet.registry import check, register


@register("optimizer", "ExponentialDecay")
@dataclass(frozen=True)
class ExponentialDecay(AbstractSchedule):
    """Multiplies the rate by decay_base after decay_start steps, and again every interval."""

    decay_base: float = 0.1
    decay_start: int = 10_000
    decay_end: int = 10_000_000  # the last s that may decay
    decay_interval: int = 10_000
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    def __post_init__(self):
        base, interval = self.decay_base, self.decay_interval
        check(0 <= base < math.inf, "decay_base", base, "a finite number that is not negative")
        for option in ("decay_start", "decay_end"):
            value = getattr(self, option)
            check(value >= 0, option, value, "an integer that is not negative")
        check(interval >= 1, "decay_interval", interval, "an integer from 1")

    @property
    def largest_factor(self):
        return max(self.decay_base, 1.0)

    @cached_property
    def factor(self):
        log = np.float32(log_decay(self.decay_base))
        start, end, interval = self.decay_start, self.decay_end, self.decay_interval

        @device
        def exponential_decay(n_done, numbers):
            n_decays = max((min(n_done, end) - start) // interval + 1, 0)
            return exp(log * np.float32(n_decays))

        return exponential_decay
