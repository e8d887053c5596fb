"""Recurring work, queued as one CUDA graph."""

from collections.abc import Callable
from typing import Any

MOST = 16  # graphs that are kept
PRICE = 16  # replays that a capture has to save before the next one
CREDIT = 64 * PRICE  # at first, and at most
NEW = object()


class Graphs:
    """Graphs of recurring work: captured when the same work comes again, then replayed.

    The first time it is queued kernel by kernel, which compiles and allocates everything. Work
    whose graphs are seldom played is no longer captured, which takes longer than to queue it.
    """

    def __init__(self, device: Any):
        self._device = device
        self._graphs = {}  # key -> graph, or None for work queued once; the latest is last
        self._credit = CREDIT

    def run(self, key: tuple, queue: Callable[..., None], *arguments) -> None:
        """Queue the work that `key` fully determines: all addresses, sizes and kernels."""
        graph = self._graphs.pop(key, NEW)
        if graph is NEW:
            queue(*arguments)
            graph = None
            if len(self._graphs) == MOST:
                del self._graphs[next(iter(self._graphs))]
        elif graph is None and self._credit < PRICE:
            queue(*arguments)
        else:
            if graph is None:
                graph = self._device.capture(lambda: queue(*arguments))
                self._credit -= PRICE
            self._device.replay(graph)
            self._credit = min(self._credit + 1, CREDIT)
        self._graphs[key] = graph
