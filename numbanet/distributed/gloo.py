"""Communicator over gloo, which comes with PyTorch, for processes of torchrun.

torchrun itself ends and names the others when a process dies, and may start all of them again.
"""

import atexit
import os
import weakref
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from numbanet.communicator import Communicator, RankError, sizes_of

_open: weakref.WeakSet = weakref.WeakSet()  # communicators that are to let their group go
_n_made = 0  # of this process; each communicator meets under a name of its own


@atexit.register
def let_groups_go() -> None:
    """End the threads of gloo while the interpreter still runs: later they abort the process."""
    for comm in list(_open):
        comm._group = None


class GlooCommunicator(Communicator):
    """Communicator of the processes of one torchrun, which meet at its store."""

    def __init__(self, rank: int, size: int, timeout: float, pieces: int | None = None):
        import torch
        from torch import distributed

        self.rank, self.size, self.pieces = rank, size, pieces
        self.check_pieces()
        self._torch, self.timeout = torch, timeout
        limit = timedelta(seconds=timeout)
        try:
            store = distributed.PrefixStore(meeting_place(), store_of_torchrun(distributed, limit))
            self._group = distributed.ProcessGroupGloo(store, rank, size, limit)
            _open.add(self)
        except RuntimeError as error:
            raise RankError(
                f"rank {rank} of {size} did not meet all others in {timeout:g} s: {error!s:.300}"
            ) from error

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, gloo>"

    def gather(self, numbers):
        numbers = np.ascontiguousarray(numbers)
        rows = np.empty((self.size, *numbers.shape), numbers.dtype)
        mine, all_rows = self._bytes(numbers), self._bytes(rows)
        self._wait(self._group._allgather_base, all_rows, mine)
        return rows

    def parts(self, array, bounds):
        sizes = sizes_of(bounds)
        rows = np.empty((self.size, sizes[self.rank]), array.dtype)
        to, n = self._torch.from_numpy(rows.reshape(-1)), [sizes[self.rank]] * self.size
        self._wait(self._group.alltoall_base, to, self._torch.from_numpy(array), n, sizes)
        return rows

    def fill(self, array, bounds):
        values = self._torch.from_numpy(array)
        for rank, (first, last) in enumerate(pairwise(bounds)):
            if first < last:
                self._wait(self._group.broadcast, values[first:last], rank)

    def _bytes(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))

    def _wait(self, operation: Any, *arguments) -> None:
        try:
            operation(*arguments).wait()
        except RuntimeError as error:
            raise RankError(
                f"rank {self.rank} of {self.size} lost another one, or waited {self.timeout:g} s "
                f"for it: {error!s:.300}"
            ) from error


def store_of_torchrun(distributed: Any, limit: timedelta) -> Any:
    """Store at which the processes of a launch meet; torchrun's agent has it, or rank 0."""
    has_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return distributed.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=not has_agent and os.environ["RANK"] == "0",
        timeout=limit,
        wait_for_workers=False,
    )


def meeting_place() -> str:
    """Name that is the same on all ranks, and changes with each restart."""
    global _n_made  # noqa: PLW0603
    _n_made += 1
    return f"numbanet/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/{_n_made}"
