"""Agreement of the ranks that train one model, and checks of it."""

import json
import zlib
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from numbanet.communicator import Communicator, RankError

WAYS = ("overwrite", "accumulate", "ignore")
MOST_UNASKED = 63  # steps in turn before which ranks are not asked, where the devices weight them


class Replicas:
    """Checks that the ranks are about to do the same."""

    def __init__(self, comm: Communicator):
        self.comm = comm
        self._is_checked = comm.size == 1
        self._is_alone = comm.size == 1 and comm.pieces is None
        self._latest, self._key = (None, None), 0
        self._n_rows, self._n_unasked = 0, 0
        self._most = 0  # samples of this rank's steps since the ranks were asked
        self.is_nominal = False  # whether the devices compare n_rows, see Batch

    def begin_step(self, trainer: Any, n: int, run_optimizer: bool, gradient_mode: str) -> int:
        """Number of samples of all ranks, of which n are this one's; see `is_nominal`.

        Raises:
            ValueError: on all ranks, because they make different calls, or were started with
                different models; nothing was done.
        """
        if self._is_alone:
            return n
        are_equal = self.comm.equal_batches
        if self._is_checked and are_equal:
            return n * self.comm.size
        weighs = trainer.weighs_batches and run_optimizer and gradient_mode == "overwrite"
        weighs = weighs and not are_equal
        self._most = max(self._most, n)
        if weighs and self._n_rows > 0 and self._n_unasked < MOST_UNASKED:
            self.is_nominal = True
            self._n_unasked += 1
            return self._n_rows
        counts = self._ask(trainer, n, run_optimizer, gradient_mode)
        self._check_counts(counts)
        self._is_checked = True
        n_rows = int(counts.sum())
        self.is_nominal = weighs and n_rows > 0
        return n_rows

    def _ask(self, trainer: Any, n: int, run_optimizer: bool, gradient_mode: str) -> np.ndarray:
        """Numbers of samples of all ranks, which are about to make the same step.

        Until they are asked again, each is taken to have as many as it had at most since the last
        time: so a step at the end of an epoch, with fewer, is not what others are measured by.
        """
        if self.comm.size == 1:
            return np.array([n])
        if not self._is_checked:
            compare(self.comm, start_of(trainer))
        same = [WAYS.index(gradient_mode), int(run_optimizer), self._key_of(trainer)]
        call = np.array([n, self._most, *same, self._n_unasked], np.int64)
        calls = self.comm.gather(call)
        others = np.flatnonzero((calls[:, 2:] != calls[0, 2:]).any(axis=1))
        if others.size:
            raise ValueError(
                f"rank {others[0]} makes another step than rank 0: gradient_mode, "
                "run_optimizer, or an option of the optimizer or the loss differs"
            )
        self._n_unasked = 0
        self._n_rows, self._most = int(calls[:, 1].sum()), 0
        return calls[:, 0]

    def _check_counts(self, counts: np.ndarray) -> None:
        """Raise ValueError if the ranks may not have these numbers of samples."""
        pieces, found = self.comm.own_pieces, ", ".join(map(str, counts[:8]))
        are_equal = (counts == counts[0]).all()
        if self.comm.pieces is not None and not (are_equal and (counts % pieces == 0).all()):
            raise ValueError(
                f"inputs: the ranks have {found} samples; with pieces={self.comm.pieces} all have "
                f"equally many, a multiple of {pieces}"
            )
        if self.comm.equal_batches and not are_equal:
            raise ValueError(
                f"inputs: the ranks have {found} samples; with equal_batches all have equally many"
            )

    def _key_of(self, trainer: Any) -> int:
        """Number of the options of the optimizer and the loss."""
        latest = trainer.optimizer, trainer.loss
        if latest[0] is not self._latest[0] or latest[1] is not self._latest[1]:
            self._latest, self._key = latest, zlib.crc32(repr(latest).encode())
        return self._key


def start_of(trainer: Any) -> dict[str, str]:
    """Settings that ranks must share before they begin, by name."""
    model = trainer.network
    return {
        "version of numbanet": version_of("numbanet"),
        "version of numba": version_of("numba"),
        "n_input_dims": str(model.n_input_dims),
        "config": json.dumps(trainer.config(), sort_keys=True),
        "precision": model.precision,
        "on_nonfinite": trainer.on_nonfinite,
        "pieces": str(trainer.comm.pieces),
        "number of steps": str(trainer.n_steps),
        "parameters": digest(model.parameters.common()),
    }


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def compare(comm: Communicator, mine: dict[str, str]) -> None:
    """Raise ValueError on all ranks if the settings of one differ from rank 0's."""
    texts = list(map(json.loads, comm.gather_text(json.dumps(mine))))
    for name, expected in texts[0].items():
        for rank, theirs in enumerate(texts):
            found = theirs.get(name)
            if found != expected:
                advice = "; use one seed, or load one file" if name == "parameters" else ""
                raise ValueError(
                    f"the {name} of rank {rank} differs from rank 0's: {found!s:.120} and "
                    f"{expected!s:.120}{advice}"
                )


def check_equal(comm: Communicator, arrays: dict[str, np.ndarray]) -> None:
    """Raise RankError on all ranks unless the arrays of all have the same bits."""
    digests = comm.gather_text(" ".join(map(digest, arrays.values())))
    for rank, theirs in enumerate(digests):
        pairs = zip(arrays, theirs.split(), digests[0].split(), strict=True)
        different = [name for name, found, expected in pairs if found != expected]
        if different:
            raise RankError(
                f"rank {rank} of {comm.size} has other {' and '.join(different)} than rank 0; "
                "was something written to on one rank only?"
            )


def digest(array: np.ndarray) -> str:
    return blake2b(np.ascontiguousarray(array).view(np.uint8), digest_size=16).hexdigest()
