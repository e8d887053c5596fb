"""Measure training and inference on the CPU: numbanet and other frameworks, the same job each.

    python benchmarks/cpu_training.py [--rivals none|all|NAMES] [--batch-sizes 2^14,2^16,2^18]
                                      [--quick] [--quality] [--output FILE]

The job is that of samples/configs/config_hash.json on a photograph, in float32 on all cores.
Every method is first verified against a float64 reference (loss, gradients, parameters after three
steps, outputs); one that disagrees is not timed. See README.md for what is measured and how.
"""

import argparse
import datetime
import json
import math
import os
import platform
import sys
from pathlib import Path

import numpy as np
from floor import floor
from method_process import MethodError, MethodMissing, Process
from rivals import RIVALS
from verification import Verification, check

HERE = Path(__file__).parent
NUMBANET = "numbanet"
METHODS = {NUMBANET: "numbanet_method:Numbanet", **RIVALS}
N_QUALITY_STEPS, QUALITY_BATCH = 1000, 2**14
INFERENCE_BATCH = 2**18


def main():
    options = parse_arguments()
    methods, report = start_methods(options)
    if options.quality:
        measure_quality(methods, report)
    elif methods:
        measure_speed(methods, options, report)
    for process in methods.values():
        process.close()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {options.output}")
    if NUMBANET in report["left_out"]:
        sys.exit(f"numbanet was left out: {report['left_out'][NUMBANET]}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--rivals",
        type=rival_names,
        default="all",
        help=f"none, all that are installed (the default), or some of: {', '.join(RIVALS)}",
    )
    parser.add_argument("--batch-sizes", type=batch_sizes, default="2^14,2^16,2^18")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument(
        "--quality",
        action="store_true",
        help=f"instead of timing, train {N_QUALITY_STEPS} steps and print the PSNR reached",
    )
    parser.add_argument("--image", type=Path, default=HERE.parent / "samples/images/astronaut.png")
    parser.add_argument("--output", type=Path, help="default: results/cpu_training.json, or "
                        "results/cpu_quality.json")  # fmt: skip
    options = parser.parse_args()
    if options.output is None:
        name = "cpu_quality.json" if options.quality else "cpu_training.json"
        options.output = HERE / "results" / name
    return options


def rival_names(text):
    """Expand "all", "none" or a list of names, where "torch" stands for all that start so."""
    if text in ("none", "all"):
        return [] if text == "none" else list(RIVALS)
    names = []
    for part in text.split(","):
        matching = [name for name in RIVALS if name == part or name.startswith(part + "-")]
        if not matching:
            raise argparse.ArgumentTypeError(f"{part!r} is none of: {', '.join(RIVALS)}")
        names += matching
    return names


def batch_sizes(text):
    try:
        sizes = [2 ** int(part[2:]) if part[:2] == "2^" else int(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected sizes like 2^14,65536")
    return sizes


def start_methods(options):
    """Return the processes of all methods that agree with the reference, and the report so far."""
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "verification": {},
        "left_out": {},
    }
    verification = Verification(options.image)
    methods = {}
    for name in [NUMBANET, *options.rivals]:
        process = None
        try:
            process = Process("method_process:Session", METHODS[name], options.image)
            versions, errors = verification.errors(process)
            report["verification"][name] = errors
            check(errors)
        except MethodError as error:
            why = "not installed" if isinstance(error, MethodMissing) else "FAILED"
            report["left_out"][name] = f"{why}: {error}"
            print(f"{name:15} {why}, skipped: {error}", flush=True)
            if process:
                process.close()
            continue
        methods[name] = process
        report["versions"] |= versions
        worst = ", ".join(f"{quantity} {error:.0e}" for quantity, error in errors.items())
        print(f"{name:15} agrees with float64 (relative errors: {worst})", flush=True)
    return methods, report


def machine():
    lines = lines_of("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "n_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY"),
        "load_at_start": os.getloadavg()[0] if os.name == "posix" else None,
    }


def lines_of(path):
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def measure_speed(methods, options, report):
    n_rounds, unit = (3, 0.15) if options.quick else (7, 0.4)
    report["settings"] = {"n_rounds": n_rounds, "seconds_per_round_and_method": unit}
    jobs = [("training", n) for n in options.batch_sizes] + [("inference", INFERENCE_BATCH)]
    ceilings = Process("ceilings:Ceilings")
    report["machine"]["n_threads_of_numba"] = ceilings.n_threads()
    rates = []
    report["results"] = []
    for job, n in jobs:
        first_calls, seconds = measure_job(methods, job, n, n_rounds, unit, report)
        rates += [ceilings.measure() for _ in range(2)]
        report["results"].append(summary(job, n, first_calls, seconds))
        print_result(report["results"][-1])
    report["ceilings"] = {name: max(rate[name] for rate in rates) for name in rates[0]}
    ceilings.close()
    print_table(report["results"])
    print_ceilings(report)


def measure_job(methods, job, n, n_rounds, unit, report):
    """Return the seconds of the first call, and of a repetition in every round, by method."""
    first_calls, n_repeats, seconds = {}, {}, {}

    def attempt(name, function, *args):
        try:
            return getattr(methods[name], function)(*args)
        except MethodError as error:
            report["left_out"][name] = f"FAILED in {job} at {n}: {error}"
            print(f"{name}: {report['left_out'][name]}", flush=True)
            methods.pop(name).close()
            seconds.pop(name, None)
            return None

    for name in list(methods):
        first_calls[name] = attempt(name, "prepare", job, n)
        estimate = name in methods and attempt(name, "measure", job, n, 1)
        if name in methods:
            n_repeats[name] = max(1, math.ceil(unit / estimate))
            seconds[name] = []
    for i in range(n_rounds):
        names = list(methods)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            measured = attempt(name, "measure", job, n, n_repeats[name])
            if measured is not None:
                seconds[name].append(measured)
    return first_calls, seconds


def summary(job, n, first_calls, seconds):
    """Return what the report says of one job; ratios are taken round by round."""
    rows = {}
    for name, values in seconds.items():
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
        rows[name] = {
            "thousand_samples_per_second": float(n / middle / 1e3),
            "spread": float((high - low) / 2 / middle),
            "first_call_seconds": first_calls[name],
            "seconds": values,
        }
    result = {"job": job, "batch_size": n, "methods": rows}
    rivals = [name for name in rows if name != NUMBANET]
    if rivals and NUMBANET in rows:
        best = min(rivals, key=lambda name: np.median(seconds[name]))
        ratios = np.divide(seconds[best], seconds[NUMBANET])
        result |= {"best_rival": best, "ratio_to_best_rival": float(np.median(ratios))}
    return result


def title(result):
    n = result["batch_size"]
    size = f"2^{n.bit_length() - 1}" if n & (n - 1) == 0 else str(n)
    return f"{result['job']} {size}"


def print_result(result):
    parts = [
        f"{name} {row['thousand_samples_per_second']:.0f}"
        for name, row in result["methods"].items()
    ]
    print(f"{title(result)}: {', '.join(parts)}", flush=True)


def print_table(results):
    print("\nThousand samples/s: median of the rounds, and half the interquartile range")
    names = list(dict.fromkeys(name for result in results for name in result["methods"]))
    print(f"{'':17}" + "".join(f"{title(result):>18}" for result in results))
    for name in names:
        cells = []
        for result in results:
            row = result["methods"].get(name)
            cells.append(
                f"{row['thousand_samples_per_second']:.0f} ±{100 * row['spread']:3.0f}%"
                if row
                else "-"
            )
        print(f"{name:17}" + "".join(f"{cell:>18}" for cell in cells))
    if "best_rival" in results[0]:
        print(f"{'ratio to best':17}" + "".join(
            f"{result['ratio_to_best_rival']:>18.2f}" for result in results))  # fmt: skip
        print(f"{'':17}" + "".join(f"{result['best_rival']:>18}" for result in results))


def print_ceilings(report):
    rates = report["ceilings"]
    print(
        f"\nCeilings: {2e-9 * rates['multiply-adds']:.0f} GFLOP/s "
        f"(np.matmul {2e-9 * rates['multiply-adds of np.matmul']:.0f}), "
        f"copy {1e-9 * rates['copied bytes']:.1f} GB/s, "
        f"{1e-6 * rates['gathers']:.0f} M gathers/s and {1e-6 * rates['scatters']:.0f} M "
        "scatter-adds/s of feature pairs in the L2 cache"
    )
    print("Floor of a sample in ns, and numbanet's distance to it:")
    for result in report["results"]:
        parts = floor(rates, result["job"], result["batch_size"])
        total = sum(parts.values())
        result["floor_nanoseconds"] = parts
        line = f"{title(result):15} {total:5.0f} = " + " + ".join(
            f"{name} {part:.0f}" for name, part in parts.items()
        )
        row = result["methods"].get(NUMBANET)
        if row:
            measured = 1e6 / row["thousand_samples_per_second"]
            result["distance_to_floor"] = measured / total
            line += f"; measured {measured:.0f}, {measured / total:.1f} times the floor"
        print(line)


def measure_quality(methods, report):
    """Train each method on the same batches; PSNR in linear light and as displayed."""
    print(f"\n{N_QUALITY_STEPS} steps of {QUALITY_BATCH} samples: PSNR in linear light, displayed")
    quality = report["quality"] = {}
    for name, process in methods.items():
        try:
            linear, displayed, seconds = process.learn(N_QUALITY_STEPS, QUALITY_BATCH)
        except MethodError as error:
            report["left_out"][name] = f"FAILED: {error}"
            print(f"{name:15} FAILED: {error}", flush=True)
            continue
        quality[name] = {"psnr": linear, "psnr_displayed": displayed, "seconds": seconds}
        print(f"{name:15} {linear:6.2f} dB {displayed:6.2f} dB   {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    main()
