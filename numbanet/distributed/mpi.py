"""Communicator over MPI, by mpi4py.

Nothing blocks within MPI: operations are polled until they are done or the timeout is over.
Then the ranks that wait tell each other so, and those of which nothing is heard are the culprits.
"""

import atexit
import os
import sys
import time
import weakref
from typing import Any

import numpy as np

from numbanet.communicator import Communicator, RankError, sizes_of
from numbanet.shown import shown

TAG_ASKED, TAG_WAITING = 1, 2
# Data moves only while MPI is polled, a piece each time; a longer wait is for a rank.
MOVING = 0.25  # seconds in which a waiting process does not sleep
NAP, LONGEST_NAP = 20e-6, 1e-3  # seconds
GRACE = 2.0  # seconds in which ranks that wait are heard of


def world() -> Any:
    """MPI's communicator of all processes.

    Raises:
        RuntimeError: there is no MPI.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise RuntimeError(
            f"mpi4py finds no MPI ({error}); pip install mpich, or load your system's"
        ) from error
    return MPI.COMM_WORLD


class MpiCommunicator(Communicator):
    """Communicator over a duplicate of an MPI communicator."""

    def __init__(self, comm: Any, timeout: float, pieces: int | None = None):
        from mpi4py import MPI

        if not isinstance(comm, MPI.Intracomm):
            raise TypeError(f"comm: expected a communicator of mpi4py, got {shown(comm)}")
        self._mpi, self._comm, self.timeout = MPI, comm.Dup(), timeout
        self.rank, self.size, self.pieces = comm.Get_rank(), comm.Get_size(), pieces
        self.check_pieces()
        self._failure = None
        if self.size > 1:
            atexit.register(end_all, weakref.ref(self))

    def __repr__(self) -> str:
        return f"<rank {self.rank} of {self.size}, MPI>"

    def gather(self, numbers):
        numbers = np.ascontiguousarray(numbers)
        rows = np.empty((self.size, *numbers.shape), numbers.dtype)
        self._wait(self._comm.Iallgather, as_bytes(numbers), as_bytes(rows))
        return rows

    def parts(self, array, bounds):
        sizes = sizes_of(bounds)
        rows = np.empty((self.size, sizes[self.rank]), array.dtype)
        to = rows.reshape(-1), [sizes[self.rank]] * self.size
        self._wait(self._comm.Ialltoallv, (array, sizes), to)
        return rows

    def fill(self, array, bounds):
        self._wait(self._comm.Iallgatherv, self._mpi.IN_PLACE, (array, sizes_of(bounds)))

    def _wait(self, operation: Any, *arguments) -> None:
        """Run an operation of MPI; a RankError ends this communicator for good."""
        if self._failure:
            raise RankError(self._failure)
        try:
            request = operation(*arguments)
            begun = time.monotonic()
            while not request.Test():
                if time.monotonic() - begun > MOVING:
                    self._nap_until(request)
                    return
                os.sched_yield()
        except self._mpi.Exception as error:
            self._failure = f"rank {self.rank} of {self.size} lost another one: {error}"
            raise RankError(self._failure) from error

    def _nap_until(self, request: Any) -> None:
        deadline, nap = time.monotonic() + self.timeout, NAP
        while not request.Test():
            time.sleep(nap)
            nap = min(1.1 * nap, LONGEST_NAP)
            if nap == LONGEST_NAP:
                self._answer()
            if time.monotonic() > deadline:
                self._give_up(request)
                return

    def _answer(self) -> None:
        """Answer a rank that gives up that this one is waiting too."""
        status = self._mpi.Status()
        while self._comm.Iprobe(self._mpi.ANY_SOURCE, TAG_ASKED, status):
            source = status.Get_source()
            self._comm.Recv(bytearray(1), source, TAG_ASKED)
            self._comm.Isend(b"w", source, TAG_WAITING)

    def _give_up(self, request: Any) -> None:
        """Raise a RankError that names the missing ranks, unless the operation ends after all.

        The first rank that waits speaks for all of them, if it is quick.
        """
        missing = set(range(self.size)) - {self.rank}
        for other in missing:
            self._comm.Isend(b"?", other, TAG_ASKED)
        deadline = time.monotonic() + GRACE
        while missing and time.monotonic() < deadline:
            self._answer()
            for other in tuple(missing):
                if self._comm.Iprobe(other, TAG_WAITING):
                    self._comm.Recv(bytearray(1), other, TAG_WAITING)
                    missing.discard(other)
            if request.Test():
                return
            time.sleep(LONGEST_NAP)
        names = ", ".join(map(str, sorted(missing)))
        who = f"rank {names}" if len(missing) == 1 else f"ranks {names}"
        self._failure = (
            f"{who} of {self.size} did not come within {self.timeout:g} s: ended, stopped, or in "
            "other calls than the rest"
        )
        if self.rank != min(set(range(self.size)) - missing):
            time.sleep(2 * GRACE)
        raise RankError(self._failure)


def as_bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8)


def end_all(reference: weakref.ref) -> None:
    """Make MPI end the other processes, which would wait, at the end of a process that failed."""
    comm = reference()
    if comm is None or comm._mpi.Is_finalized():
        return
    error = getattr(sys, "last_value", None)
    if error is None and comm._failure is None:
        return
    what = comm._failure or f"{type(error).__name__}: {shown(str(error))}"
    sys.stdout.flush()
    sys.stderr.write(f"numbanet: rank {comm.rank} of {comm.size} ends all ranks: {what}\n")
    sys.stderr.flush()
    comm._comm.Abort(1)
