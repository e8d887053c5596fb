"""Recurring work, queued as one CUDA graph."""

from collections.abc import Callable
from typing import Any

MOST = 16  # graphs that are kept
PRICE = 16  # replays that a capture has to save before the next one
CREDIT = 64 * PRICE  # at first, and at most


class Recurring:
    """Work that was queued before, with its graph once that is captured."""

    __slots__ = ("graph", "was_used")

    def __init__(self):
        self.graph, self.was_used = None, False


class Graphs:
    """Graphs of recurring work: captured when the same work comes again, then replayed.

    The first time it is queued kernel by kernel, which compiles and allocates everything. Work
    whose graphs are seldom played is no longer captured, which takes longer than to queue it.
    """

    def __init__(self, device: Any):
        self._device = device
        self._works = {}
        self._credit = CREDIT

    def run(self, key: tuple, queue: Callable[..., None], *arguments) -> Recurring:
        """Queue the work that `key` fully determines: all addresses, sizes and kernels."""
        work = self._works.get(key)
        if work is None:
            queue(*arguments)
            if len(self._works) == MOST:
                self._forget_one()
            work = self._works[key] = Recurring()
        elif work.graph is None and self._credit < PRICE:
            queue(*arguments)
            work.was_used = True
        else:
            if work.graph is None:
                work.graph = self._device.capture(lambda: queue(*arguments))
                self._credit -= PRICE
            self.replay(work)
        return work

    def replay(self, work: Recurring) -> None:
        """Queue work that has a graph."""
        self._device.replay(work.graph)
        work.was_used = True
        if self._credit < CREDIT:
            self._credit += 1

    def _forget_one(self) -> None:
        """Remove the first work that was not used since this looked at it."""
        while True:
            key = next(iter(self._works))
            work = self._works.pop(key)
            if not work.was_used:
                work.graph = None
                return
            work.was_used = False
            self._works[key] = work
