"""The main program of the benchmarks of a GPU, which differ in jobs and kind."""

import argparse
from pathlib import Path

from benchmarks.harness.gpu import gpu_is_usable
from benchmarks.harness.machine import card
from benchmarks.harness.options import RESULTS, batch_sizes, chosen_from
from benchmarks.harness.report import draw, print_shares, print_tables
from benchmarks.harness.run import Run
from benchmarks.methods import GPU_RIVALS, NUMBANET_GPU

METHODS = NUMBANET_GPU | GPU_RIVALS
CEILINGS = "benchmarks.harness.gpu_ceilings:Ceilings"
DEFAULT_BATCHES = "2^10,2^12,2^14,2^16,2^18,2^20,2^21"
QUICK_BATCHES = "2^14,2^18"
ROUND_SECONDS, TIMEOUT = 0.02, 240  # compilation included


def main(name, kind, jobs, description):
    """Run one benchmark.

    Args:
        name: of the script, and of the files that it writes.
        kind: "training" or "inference".
        jobs: names from JOBS.
        description: for --help.
    """
    options = parse_arguments(jobs, description)
    if not gpu_is_usable():
        return
    methods = {name: METHODS[name] for name in options.methods}
    # most of a start is compilation, and all are timed by one GPU: so all start at once
    run = Run(card(), methods, tuple(NUMBANET_GPU), CEILINGS, n_rounds=3 if options.quick else 7,
              round_seconds=ROUND_SECONDS, n_starting=len(methods), times_host=True,
              timeout=TIMEOUT)  # fmt: skip
    run.report["benchmark"] = name
    print(f"{run.report['machine']['name']}, driver {run.report['machine']['driver']}")
    for job in options.configs:
        run.measure(job, {kind: options.batches})
        run.write(options.output / f"{name}.json")  # also if the next job is cut off
    print_tables(run.report)
    print_shares(run.report)
    run.write(options.output / f"{name}.json")
    draw(run.report, options.output / f"{name}.png")


def parse_arguments(jobs, description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batches", type=batch_sizes, help=f"default: {DEFAULT_BATCHES}")
    parser.add_argument("--configs", type=chosen_from(jobs), default=list(jobs),
                        help=f"some of {', '.join(jobs)}")  # fmt: skip
    parser.add_argument("--methods", type=chosen_from(METHODS), default=list(METHODS),
                        help=f"some of {', '.join(METHODS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.batches is None:
        options.batches = batch_sizes(QUICK_BATCHES if options.quick else DEFAULT_BATCHES)
    return options
