"""History of a training: steps, losses, evaluations, time.

Training time is what passes between the evaluations. The first step, which compiles or loads the
compiled code, is not part of it. A GPU works on while the host queues more steps, so the clock is
read only where a loss is, for which all steps before had to be finished: up to 100 steps apart.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from numbanet.optimizers.base import MOST_STEPS
from numbanet.shown import shown


@dataclass
class History:
    """Course of a training; `numbanet.fit` writes it, and continues it.

    Args:
        step: steps that were made.
        losses: (step, loss) of the steps whose loss was read: all up to 100, then about 90 a
            decade, at most 100 apart.
        metrics: (step, {name: value}) of evaluations.
        training_seconds, timed_steps: the time of so many steps, evaluations not included.
        end: why a training ended before its last step; "" if it did not.
    """

    step: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    metrics: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    training_seconds: float = 0.0
    timed_steps: int = 0
    end: str = ""

    @property
    def finished(self) -> bool:
        """Whether all requested steps were made."""
        return not self.end

    @property
    def loss(self) -> float:
        """Last loss that was read, NaN before the first."""
        return self.losses[-1][1] if self.losses else math.nan

    @property
    def steps_per_second(self) -> float:
        """Steps per second of training time; 0 as long as nothing was timed."""
        return self.timed_steps / self.training_seconds if self.timed_steps else 0.0

    def metric(self, name: str) -> float:
        """Last value of a metric, NaN if there is none; "loss" is one."""
        if name == "loss":
            return self.loss
        found = (values[name] for _, values in reversed(self.metrics) if name in values)
        return next(found, math.nan)

    def to_json(self) -> dict[str, Any]:
        """The history as JSON; from_json makes it again."""
        return asdict(self)

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "History":
        """History from JSON, such as model.metadata["history"].

        Raises:
            TypeError: it is none, or has numbers that no training leads to.
        """
        if not isinstance(saved, Mapping) or not all(isinstance(name, str) for name in saved):
            raise TypeError(f"a history is a JSON object, not {shown(saved)}")
        history = cls(**saved)
        if not history.is_usable():
            raise TypeError("this is no history of a training")
        history.losses = [(step, loss) for step, loss in history.losses]
        history.metrics = [(step, dict(values)) for step, values in history.metrics]
        return history

    def is_usable(self) -> bool:
        """Whether all values have valid types and ranges, as they may come from a file."""
        are_counts = is_count(self.step, MOST_STEPS) and is_count(self.timed_steps, MOST_STEPS)
        if not (are_counts and isinstance(self.end, str)):
            return False
        if not is_table(self.losses, self.step, float):
            return False
        if not is_table(self.metrics, self.step, dict):
            return False
        values = [each for _, metrics in self.metrics for each in metrics.items()]
        return (
            all(type(name) is str and type(value) in (int, float) for name, value in values)
            and isinstance(self.training_seconds, float)
            and self.timed_steps * 1e-12 <= self.training_seconds < math.inf
        )


def is_count(value: Any, limit: int) -> bool:
    return type(value) is int and 0 <= value < limit


def is_table(rows: Any, last_step: int, *kinds: type) -> bool:
    """Whether values are rows of a step, up to the last one, and values of some types."""
    return isinstance(rows, list) and all(is_row(row, last_step, *kinds) for row in rows)


def is_row(row: Any, last_step: int, *kinds: type) -> bool:
    if not isinstance(row, (list, tuple)) or len(row) != 1 + len(kinds):
        return False
    step, *values = row
    are_typed = all(type(value) is kind for value, kind in zip(values, kinds, strict=True))
    return is_count(step, last_step + 1) and are_typed


def loss_due(step: int) -> bool:
    """Whether to read a step's loss: each at first, then about 90 a decade, at most 100 apart."""
    return step < 100 or step % min(10 ** (len(str(step)) - 2), 100) == 0


def milestone_due(step: int) -> bool:
    """Whether a step is worth a line: 1, 2, 5, 10, 20, ... and every 1000th."""
    digits = str(step)
    return (digits[0] in "125" and not digits[1:].strip("0")) or step % 1000 == 0
