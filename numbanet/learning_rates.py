"""Learning rates of a trainer: the one that is set, and those in force after decay."""

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.optimizers.base import MOST_STEPS


class LearningRates:
    """Properties of Trainer for the learning rate."""

    __slots__ = ()

    @property
    def learning_rate(self: Any) -> float:
        """Learning rate before the optimizer's own decay; setting it compiles nothing."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self: Any, value: float) -> None:
        self.update_hyperparams({"optimizer": self.optimizer.learning_rate_options(value)})

    @property
    def learning_rates_in_force(self: Any) -> tuple[float, ...]:
        """Learning rates of the next step, after schedules.

        One for each part of a Composite, and of Muon and SOAP that of matrices and of what is none.

        A GPU is waited for, since decay depends on the steps that were made.
        """
        optimizer, t = self.optimizer, min(self.n_steps + 1, MOST_STEPS)
        scalars = np.zeros(optimizer.n_scalars, np.float32)
        hyperparams = np.array(optimizer.hyperparams(), np.float32)
        schedule_of(optimizer.kernel_key())(np.int32(t), hyperparams, scalars)
        return tuple(float(scalars[k]) for k in optimizer.rates)


@lru_cache(maxsize=64)
def schedule_of(optimizer: Any) -> Any:
    """Schedule of all optimizers that have this kernel key, compiled once."""
    return optimizer.schedule
