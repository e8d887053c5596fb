"""Tries cases one after another, and says what became of them: see campaign.py."""

import faulthandler
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np

from fuzz.campaign import CLEAR, FAULT, MOST_BYTES, PASSED, SECONDS_PER_CASE, Format
from fuzz.formats import find

MOST_CHARACTERS = 3000  # of a message that counts as clear


def attempt(kind: Format, seed: int, number: int, folder: Path) -> tuple[str, str]:
    """The outcome of a case, and words about it."""
    case = kind.generate(np.random.default_rng([seed, number]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for category in kind.allowed_warnings:
                warnings.simplefilter("ignore", category)
            kind.target(case, folder)
    except kind.clear as error:
        message = str(error)
        if not message or len(message) > MOST_CHARACTERS:
            return FAULT, f"{type(error).__name__} with a message of {len(message)} characters"
        if not message.isascii() and message.encode(errors="replace").decode() != message:
            return FAULT, f"{type(error).__name__} with a message that cannot be printed"
        return CLEAR, f"{type(error).__name__}: {message}"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return FAULT, f"{type(error).__name__} at {where}: {error!s:.200}"
    return PASSED, "-"


def main(name: str, seed: int, first: int, stop: int, folder: Path) -> None:
    """Try the cases; each line on stdout is an outcome, a case and words."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # so that nothing else gets between the answers
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind = find(name)
    os.chdir(folder)
    for number in range(first, stop):
        print("at", number, "-", file=answers, flush=True)
        faulthandler.dump_traceback_later(SECONDS_PER_CASE, exit=True)
        outcome, words = attempt(kind, seed, number, folder)
        faulthandler.cancel_dump_traceback_later()
        print(outcome, number, " ".join(words.split())[:500] or "-", file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), Path(sys.argv[5]))
