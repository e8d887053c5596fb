"""Work that comes again is queued as one CUDA graph."""

from collections.abc import Callable
from typing import Any

MOST = 16  # graphs that are kept
NEW = object()


class Graphs:
    """Queues work as a CUDA graph as soon as the same work comes again.

    The first time it is queued kernel by kernel: that compiles and allocates what it needs.
    """

    def __init__(self, device: Any):
        self._device = device
        self._graphs = {}  # key -> graph, or None for what came once; the latest one is last

    def run(self, key: tuple, queue: Callable[..., None], *arguments) -> None:
        """Queue the work that `key` determines in full: all addresses, sizes and kernels."""
        graph = self._graphs.pop(key, NEW)
        if graph is NEW:
            queue(*arguments)
            graph = None
            if len(self._graphs) == MOST:
                del self._graphs[next(iter(self._graphs))]
        else:
            if graph is None:
                graph = self._device.capture(lambda: queue(*arguments))
            self._device.replay(graph)
        self._graphs[key] = graph
