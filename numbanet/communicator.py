"""Communication between ranks, the processes that train one model together.

An engine is a subclass with three operations on NumPy arrays; the others follow from them. Sums are
made in pairs of neighbouring ranks, then of pairs, and so on, each by one rank alone: so all ranks
get the same bits, in every run.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from numbanet.shown import shown

SMALL = 1 << 12  # numbers that are summed by every rank rather than in parts
MOST_PIECES = 1 << 10


class RankError(RuntimeError):
    """A rank failed or did not respond; the message names it."""


class Communicator(ABC):
    """One process of several, each of which makes the same calls in the same order.

    Attributes:
        rank: the number of this process, from 0.
        size: number of processes.
        pieces: None, or into how many equal pieces the batch of all ranks is divided, which are
            evaluated one by one; numbers of ranks that divide it then train the same bits.
        equal_batches: whether all ranks are trusted to make the same calls with as many samples,
            after the first step, instead of being asked.
        timeout: seconds after which a rank that does not come is given up.
    """

    rank: int
    size: int
    pieces: int | None = None
    equal_batches = False
    timeout = 300.0

    @cached_property
    def collectives(self) -> dict[int, Any]:
        """Collectives of the GPUs of these ranks, by the number of the own one."""
        return {}

    @abstractmethod
    def gather(self, numbers: np.ndarray) -> np.ndarray:
        """Arrays of all ranks, [size, *shape]; all have one shape.

        Raises:
            RankError: a rank ended, or did not come within the timeout. So do the others.
        """

    @abstractmethod
    def parts(self, array: np.ndarray, bounds: Sequence[int]) -> np.ndarray:
        """Elements [bounds[rank], bounds[rank + 1]) of every rank's vector, [size, n]."""

    @abstractmethod
    def fill(self, array: np.ndarray, bounds: Sequence[int]) -> None:
        """Copy each rank's own part of a vector to all ranks."""

    def reduce_part(self, array: np.ndarray, bounds: Sequence[int]) -> np.ndarray:
        """Sum over the ranks of this rank's part of a vector."""
        return sum_in_pairs(self.parts(array, bounds))

    def reduce(self, array: np.ndarray) -> np.ndarray:
        """Sum of a vector over the ranks."""
        if array.size <= SMALL or self.size == 1:
            return sum_in_pairs(self.gather(array))
        bounds = even_bounds(array.size, self.size, 1)
        total = np.empty_like(array)
        total[bounds[self.rank] : bounds[self.rank + 1]] = self.reduce_part(array, bounds)
        self.fill(total, bounds)
        return total

    def gather_text(self, text: str) -> list[str]:
        """Texts of all ranks."""
        data = np.frombuffer(text.encode(), np.uint8)
        sizes = self.gather(np.array([data.size], np.int64))[:, 0]
        padded = np.zeros(max(int(sizes.max()), 1), np.uint8)
        padded[: data.size] = data
        rows = self.gather(padded)
        return [row[:n].tobytes().decode() for row, n in zip(rows, sizes, strict=True)]

    @contextmanager
    def first_alone(self, what: str) -> Iterator[bool]:
        """Context in which rank 0 works while the others wait; its value is whether this is rank 0.

        Raises:
            RankError: rank 0 failed; it raises its own exception.
        """
        is_good = False
        try:
            yield self.rank == 0
            is_good = True
        finally:
            is_done = self.size == 1 or bool(self.gather(np.array([is_good], np.int64))[0, 0])
            if is_good and not is_done:
                raise RankError(f"rank 0 of {self.size} failed with {what}")

    def barrier(self) -> None:
        """Wait for all ranks."""
        self.gather(np.zeros(1, np.int64))

    def rows(self, n: int) -> slice:
        """This rank's rows of a batch of n that all ranks hold: n / size, rounded up or down.

        Those of all ranks together, in order, are the batch.
        """
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def rng(self, seed: int) -> np.random.Generator:
        """Generator of this rank's own samples, from a seed that all ranks share."""
        return np.random.default_rng((seed, self.rank))

    @property
    def own_pieces(self) -> int:
        """Number of pieces of this rank's batch."""
        return 1 if self.pieces is None else self.pieces // self.size

    def check_pieces(self) -> None:
        """Raise ValueError if the ranks cannot share the pieces."""
        n = self.pieces
        if n is None:
            return
        is_integer = isinstance(n, (int, np.integer)) and not isinstance(n, bool)
        is_power = is_integer and 1 <= n <= MOST_PIECES and int(n).bit_count() == 1
        if not is_power or n % self.size:
            raise ValueError(
                f"pieces: {shown(n)} is not allowed for {self.size} ranks; use a power of two to "
                f"{MOST_PIECES} that the number of ranks divides"
            )


class Alone(Communicator):
    """Communicator of a single process."""

    rank, size = 0, 1

    def __repr__(self) -> str:
        return "<the only rank>"

    def __init__(self, pieces: int | None = None):
        self.pieces = pieces
        self.check_pieces()

    def gather(self, numbers):
        return numbers[None]

    def parts(self, array, bounds):
        return array[None]

    def fill(self, array, bounds):
        return


ALONE = Alone()


def communicator_of(comm: Any) -> Communicator:
    """The communicator, or that of the only rank for None; raises TypeError if it is none."""
    if comm is None:
        return ALONE
    if not isinstance(comm, Communicator):
        raise TypeError(f"comm: expected what numbanet.distributed.init returns, got {shown(comm)}")
    return comm


def sum_in_pairs(values: Sequence) -> np.ndarray:
    """Pairwise sum: of neighbours, then of the sums of neighbours, and so on."""
    while len(values) > 1:
        sums = [values[k] + values[k + 1] for k in range(0, len(values) - 1, 2)]
        values = [*sums, *values[2 * len(sums) :]]
    return values[0]


def even_bounds(n: int, n_parts: int, quantum: int) -> tuple[int, ...]:
    """Bounds of parts of [0, n): equal multiples of quantum, fewer for the last ones."""
    size = -(-n // (n_parts * quantum)) * quantum
    return tuple(min(k * size, n) for k in range(n_parts + 1))


def sizes_of(bounds: Sequence[int]) -> list[int]:
    return [last - first for first, last in pairwise(bounds)]
