"""Measure training and inference on the CPU: numbanet and other frameworks, the same job each.

    python -m benchmarks.scripts.cpu_training [--rivals none|all|NAMES] [--quick] [--quality]
                                              [--batch-sizes 2^14,2^16,2^18] [--output FILE]

The job is that of samples/configs/config_hash.json on a photograph, in float32 on all cores.
Every method is first verified against a float64 reference (loss, gradients, parameters after three
steps, outputs); one that disagrees is not timed. See README.md for what is measured and how.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.harness.floor import print_floor
from benchmarks.harness.machine import machine
from benchmarks.harness.options import RESULTS, batch_sizes, chosen_from
from benchmarks.harness.process import MethodError
from benchmarks.harness.report import print_tables
from benchmarks.harness.run import Run
from benchmarks.methods import CPU_RIVALS, NUMBANET

JOB = "config_hash"
CEILINGS = "benchmarks.harness.cpu_ceilings:Ceilings"
N_QUALITY_STEPS, QUALITY_BATCH = 1000, 2**14
INFERENCE_BATCH = 2**18


def main():
    options = parse_arguments()
    n_rounds, round_seconds = (3, 0.1) if options.quick else (7, 0.4)
    methods = {**NUMBANET, **{name: CPU_RIVALS[name] for name in options.rivals}}
    run = Run(machine(), methods, tuple(NUMBANET), CEILINGS, n_rounds=n_rounds,
              round_seconds=round_seconds)  # fmt: skip
    if options.quality:
        measure_quality(run)
    else:
        run.measure(JOB, {"training": options.batch_sizes, "inference": [INFERENCE_BATCH]})
        print_tables(run.report)
        print_floor(run.report, *NUMBANET)
    run.write(options.output)
    for left in run.report["left_out"]:
        if left["method"] in NUMBANET:
            sys.exit(f"numbanet was left out: {left['why']}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--rivals",
        type=chosen_from(CPU_RIVALS),
        default="all",
        help=f"none, all that are installed (the default), or some of: {', '.join(CPU_RIVALS)}",
    )
    parser.add_argument("--batch-sizes", type=batch_sizes, default="2^14,2^16,2^18")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--quality",
        action="store_true",
        help=f"instead of timing, train {N_QUALITY_STEPS} steps and print the PSNR reached",
    )
    parser.add_argument("--output", type=Path, help="default: results/cpu_training.json, or "
                        "results/cpu_quality.json")  # fmt: skip
    options = parser.parse_args()
    if options.output is None:
        name = "cpu_quality.json" if options.quality else "cpu_training.json"
        options.output = RESULTS / name
    return options


def measure_quality(run):
    """Train each method on the same batches; PSNR in linear light and as displayed."""
    processes, _ = run.start(JOB, {"training": [QUALITY_BATCH]})
    print(f"\n{N_QUALITY_STEPS} steps of {QUALITY_BATCH} samples: PSNR in linear light, displayed")
    quality = run.report["quality"] = {}
    for name, process in processes.items():
        try:
            linear, displayed, seconds = process.learn(N_QUALITY_STEPS, QUALITY_BATCH)
        except MethodError as error:
            run.leave_out(name, JOB, error)
            continue
        quality[name] = {"psnr": linear, "psnr_displayed": displayed, "seconds": seconds}
        print(f"{name:15} {linear:6.2f} dB {displayed:6.2f} dB   {seconds:5.1f} s", flush=True)
        process.close()


if __name__ == "__main__":
    main()
