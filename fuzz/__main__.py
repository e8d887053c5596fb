"""python -m fuzz [FORMAT ...] [--cases N] [--seed N]: run campaigns, print what became of them."""

import argparse
import sys
import time

from fuzz.campaign import run
from fuzz.formats import names

ROW = "{:16}{:>9}{:>9}{:>13}{:>9}{:>9}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("formats", nargs="*", help=f"some of {', '.join(names())}; default: all")
    parser.add_argument("--cases", type=int, default=10_000, help="of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--jobs", type=int, default=2, help="child processes at a time")
    arguments = parser.parse_args()
    unknown = set(arguments.formats) - set(names())
    if unknown:
        parser.error(f"no format {', '.join(sorted(unknown))}; there are {', '.join(names())}")
    print(ROW.format("format", "tried", "passed", "clear error", "fault", "seconds"), flush=True)
    n_faults = 0
    for name in arguments.formats or names():
        start = time.monotonic()
        tally = run(name, arguments.cases, arguments.seed, arguments.jobs, arguments.first)
        seconds = f"{time.monotonic() - start:.0f}"
        numbers = tally.tried, tally.passed, tally.clear, len(tally.faults)
        print(ROW.format(name, *numbers, seconds), flush=True)
        for case, words in tally.faults.items():
            print(f"  {name} --seed {arguments.seed} --first {case} --cases 1: {words}", flush=True)
        n_faults += len(tally.faults)
    return 1 if n_faults else 0


if __name__ == "__main__":
    sys.exit(main())
