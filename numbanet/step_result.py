"""Result of a training step, known at once or later."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepResult:
    """Outcome of a training step."""

    loss: float
    skipped: bool = False

    is_known = True

    def read(self) -> "StepResult":
        """The result itself; a step under way on a GPU has to be waited for."""
        return self


class Result(Protocol):
    """Outcome of a training step, perhaps under way."""

    is_known: bool

    def read(self) -> StepResult:
        """Wait for the outcome."""
