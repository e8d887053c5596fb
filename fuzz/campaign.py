"""A campaign: many mutated inputs of one format, tried in child processes.

A case is made from (seed, number) alone, so a fault is repeated by its number. Children report each
case before they try it; so a crash is known by its case, and the next child goes on behind it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
CASES_PER_CHILD = 1000
SECONDS_PER_CASE = 60  # of which a first compilation is a part
MOST_BYTES = 8 * 2**30  # of memory that a child can address
PASSED, CLEAR, FAULT = "passed", "clear", "fault"


@dataclass(frozen=True)
class Format:
    """What is mutated, and what reads it.

    Args:
        name: as one writes it on the command line.
        generate: (rng) -> a case, anything that `target` takes.
        target: (case, folder) reads the case; what it raises is judged, what it returns is not.
            The folder is its own, and empty or as earlier cases left it.
        clear: the exceptions that are answers; all others are faults.
        allowed_warnings: that are answers too; all others are errors.
    """

    name: str
    generate: Callable[[np.random.Generator], Any]
    target: Callable[[Any, Path], Any]
    clear: tuple[type[Exception], ...]
    allowed_warnings: tuple[type[Warning], ...] = ()


@dataclass
class Tally:
    """What became of the cases; faults by their number."""

    name: str
    passed: int = 0
    clear: int = 0
    faults: dict[int, str] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        return self.passed + self.clear + len(self.faults)

    def count(self, outcome: str, case: int, words: str) -> None:
        if outcome == FAULT:
            self.faults[case] = words
        else:
            setattr(self, outcome, getattr(self, outcome) + 1)


def run(name: str, n_cases: int, seed: int = 0, n_jobs: int = 2, first: int = 0) -> Tally:
    """Try cases `first` to first + n_cases - 1 of a format."""
    tally, stop = Tally(name), first + n_cases
    ranges = [
        (start, min(start + CASES_PER_CHILD, stop)) for start in range(first, stop, CASES_PER_CHILD)
    ]
    with ThreadPoolExecutor(n_jobs) as pool:
        for outcomes in pool.map(lambda each: list(_outcomes(name, seed, *each)), ranges):
            for outcome in outcomes:
                tally.count(*outcome)
    return tally


def _outcomes(name: str, seed: int, first: int, stop: int) -> Iterator[tuple[str, int, str]]:
    """(outcome, case, words) of each case; a child that dies is a fault of the case it was at."""
    while first < stop:
        command = [sys.executable, "-m", "fuzz.child", name, str(seed), str(first), str(stop)]
        environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory() as folder:
            child = subprocess.run(
                [*command, folder], env=environment, stdout=subprocess.PIPE, stderr=errors,
                text=True, errors="replace", check=False,
            )  # fmt: skip
            errors.seek(0)
            complaint = errors.read().decode(errors="replace").strip()
        at = first - 1
        for line in child.stdout.splitlines():
            outcome, case, words = line.split(" ", 2)
            if outcome == "at":
                at = int(case)
            else:
                yield outcome, int(case), words
                first = int(case) + 1
        if first == stop:
            return
        if at < first:
            raise RuntimeError(f"{name}: the child did not start a case\n{complaint}")
        last_line = complaint.splitlines()[-1:] or ["no message"]
        yield FAULT, at, f"the process ended with {child.returncode}: {last_line[0]}"
        first = at + 1
