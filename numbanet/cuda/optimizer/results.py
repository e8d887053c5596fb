"""Results of training steps, written by the device and read by the host on demand.

The device keeps the last HISTORY of them. A round is so many steps: before the next one takes its
places, its results are read, if anybody holds one.
"""

import weakref
from typing import Any

import numpy as np

from numbanet.cuda.memory.arrays import DeviceArray, zeros
from numbanet.cuda.optimizer.kernels import HISTORY, OTHER_CALL
from numbanet.step_result import StepResult


class Results:
    """Numbering of the results in the order of the calls, as on the device."""

    def __init__(self, device: Any):
        self.history = zeros((HISTORY, 2), np.uint32, device)
        self._n = 0
        self._round = Round(self.history)

    def next(self) -> "PendingResult":
        """Result of the step that is being queued."""
        place = self._n % HISTORY
        if place == 0:
            self._begin()
        self._n += 1
        self._round.n_asked = place + 1
        return PendingResult(self._round, place)

    def _begin(self) -> None:
        """Begin a round, after reading the results of the last one, if they are still needed."""
        last = weakref.ref(self._round)
        self._round = Round(self.history)
        if (held := last()) is not None:
            held.read()

    def resume(self, n: int) -> None:
        """Continue with result n; later ones were lost."""
        self._n = n
        self._round.n_asked = (n - 1) % HISTORY + 1


class Round:
    """Round of HISTORY steps: those whose results are still referenced."""

    def __init__(self, history: DeviceArray):
        self._history = history
        self._values = None
        self.n_known = 0
        self.n_asked = 0  # results that exist or are queued

    def read(self) -> None:
        """Wait for the device, and read all results of the round."""
        self._values = self._history.numpy()
        self.n_known = self.n_asked

    def result(self, place: int) -> StepResult:
        with self._history.device.lock:  # no step is queued while the history is read
            if place >= self.n_known:
                self.read()
            loss, why = self._values[place]
        if why == OTHER_CALL:
            raise ValueError(
                "ranks made different steps, all of which were skipped: an option of the optimizer "
                "or the loss differs, or one had no targets"
            )
        return StepResult(float(loss.view(np.float32)), why != 0)


class PendingResult:
    """StepResult that is read from the device on demand."""

    __slots__ = ("_round", "place")

    def __init__(self, its_round: Round, place: int):
        self._round, self.place = its_round, place

    @property
    def is_known(self) -> bool:
        return self.place < self._round.n_known

    def read(self) -> StepResult:
        return self._round.result(self.place)
