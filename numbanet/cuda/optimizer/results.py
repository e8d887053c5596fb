"""The results of training steps, which the device writes and the host reads when it is asked to.

The device keeps the last HISTORY of them. A round is so many steps: before the next one takes its
places, its results are read, if anybody holds one.
"""

import weakref
from typing import Any

import numpy as np

from numbanet.cuda.memory.arrays import zeros
from numbanet.cuda.optimizer.kernels import HISTORY
from numbanet.target import StepResult


def no_round() -> None:
    """As a weak reference to a round that is gone."""


class Results:
    """Numbers the results in the order of the calls, as the device does."""

    def __init__(self, device: Any):
        self.history = zeros((HISTORY, 2), np.uint32, device)
        self._n = 0
        self._round = no_round

    def next(self) -> "PendingResult":
        """The result of the step that is being queued."""
        place = self._n % HISTORY
        current = self._round()
        if place == 0 and current is not None:
            current.read()
        if place == 0 or current is None:
            current = Round(self)
            self._round = weakref.ref(current)
        self._n += 1
        return PendingResult(current, place)

    def resume(self, n: int) -> None:
        """Go on with result n; those from there on did not come."""
        self._n = n

    @property
    def n_of_round(self) -> int:
        """How many results of the latest round there are, or will be."""
        return (self._n - 1) % HISTORY + 1


class Round:
    """HISTORY steps, or those of them that somebody holds the results of."""

    def __init__(self, results: Results):
        self._results = results
        self._values = None
        self.n_known = 0

    def read(self) -> None:
        """Wait for the device, and take all results that there are."""
        self._values = self._results.history.numpy()
        self.n_known = self._results.n_of_round

    def result(self, place: int) -> StepResult:
        with self._results.history.device.lock:  # no step is queued while the history is read
            if place >= self.n_known:
                self.read()
            loss, skipped = self._values[place]
        return StepResult(float(loss.view(np.float32)), bool(skipped))


class PendingResult:
    """A StepResult that is read from the device when it is asked for."""

    __slots__ = ("_place", "_round")

    def __init__(self, its_round: Round, place: int):
        self._round, self._place = its_round, place

    @property
    def is_known(self) -> bool:
        return self._place < self._round.n_known

    def read(self) -> StepResult:
        return self._round.result(self._place)
