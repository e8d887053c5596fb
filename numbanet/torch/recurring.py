"""Recurring passes: each takes one piece of memory, and is queued as one CUDA graph."""

from collections.abc import Callable
from typing import Any

from numbanet.cuda.driver.graphs import Graphs


class Recurring:
    """Queue for the passes of one engine, on a device whose memory is TensorMemory.

    The first pass of a kind and of about a size shows how much memory such passes take, and whether
    they are more than one kernel. PyTorch's allocator tends to give a step what it gave the one
    before, so all addresses of a pass are soon those of an earlier one; then its kernels are queued
    as a graph.

    Args:
        device: of the engine.
        engine: what gives its memory back after each pass.
    """

    def __init__(self, device: Any, engine: Any):
        self._device, self.engine = device, engine
        self.deterministic = engine.deterministic
        self._graphs = Graphs(device)
        self._known = {}  # kind and power of two of samples -> most bytes, and pieces of work

    def run(self, kind: tuple, n: int, addresses: tuple, queue: Callable[[], None]) -> None:
        """Queue a pass over n samples, fully determined by its kind, n and the addresses."""
        device, size = self._device, (kind, n.bit_length())
        n_bytes, n_queued = self._known.get(size, (0, 0))
        room = device.open_room(n_bytes)
        try:
            if n_queued > 1 and device.can_capture():
                self._graphs.run((kind, n, n_bytes, room, *addresses), queue)
            else:
                queue()
            if device.taken > n_bytes or n_queued == 0:
                self._known[size] = max(device.taken, n_bytes), device.n_queued
        finally:
            if device.taken:  # not by a graph
                self.engine.release()
            device.close_room()
