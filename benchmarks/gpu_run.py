"""The part that the GPU benchmarks share: start and verify the methods, time them in turns."""

import argparse
import datetime
import json
import math
import platform
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from cpu_training import batch_sizes
from gpu_jobs import JOBS
from gpu_methods import OWN, RIVALS
from gpu_report import draw, print_ceilings, print_result, print_tables, summary
from method_process import MethodError, MethodMissing, Process

METHODS = OWN | RIVALS
DEFAULT_BATCHES = "2^10,2^12,2^14,2^16,2^18,2^20,2^21"
QUICK_BATCHES = "2^14,2^18"
N_ROUNDS, N_QUICK_ROUNDS, ROUND_SECONDS = 7, 3, 0.02  # of each method in a round
MOST_REPEATS = 1000
TIMEOUT = 240  # seconds, compilation included
VERIFIED_OUTPUTS, VERIFIED_BATCH, VERIFIED_STEPS = 2**10, 2**12, 5
# Relative errors of outputs, and of the loss before each of the first steps
TOLERANCES = {
    "float32": {"outputs": 1e-3, "loss": 1e-2},
    "float16": {"outputs": 1e-2, "loss": 3e-2},
    "bfloat16": {"outputs": 3e-2, "loss": 1e-1},
}


def main(name, kind, jobs, description):
    """Run one benchmark.

    Args:
        name: of the script, and of the files that it writes.
        kind: "training" or "inference".
        jobs: names from gpu_jobs.JOBS.
        description: for --help.
    """
    options = parse_arguments(jobs, description)
    from numbanet.cuda.driver import why_not

    reason = why_not()
    if reason is not None:
        print(f"Nothing is measured, because no GPU can be used: {reason}")
        return
    report = {
        "benchmark": name,
        "kind": kind,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "card": card(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "methods": {},
        "left_out": [],
        "results": [],
        "ceilings": {},
    }
    print(f"{report['card']['name']}, driver {report['card']['driver']}")
    options.output.mkdir(parents=True, exist_ok=True)
    for job in options.configs:
        measure_ceilings(report)
        measure_job(job, kind, options, report)
        write(report, options.output / f"{name}.json")  # also if the next job is cut off
    print_tables(report)
    print_ceilings(report)
    write(report, options.output / f"{name}.json")
    draw(report, options.output / f"{name}.png")


def parse_arguments(jobs, description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--batches", type=batch_sizes, help=f"default: {DEFAULT_BATCHES}")
    parser.add_argument("--configs", type=chosen_from(jobs), default=list(jobs),
                        help=f"some of {', '.join(jobs)}")  # fmt: skip
    parser.add_argument("--methods", type=chosen_from(METHODS), default=list(METHODS),
                        help=f"some of {', '.join(METHODS)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="fewer sizes and rounds")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    if options.batches is None:
        options.batches = batch_sizes(QUICK_BATCHES if options.quick else DEFAULT_BATCHES)
    return options


def chosen_from(names):
    """Read a list of names, where "torch" stands for all that start with "torch-" too."""

    def chosen(text):
        parts = text.split(",")
        found = [n for n in names if any(n == p or n.startswith(p + "-") for p in parts)]
        if not found:
            raise argparse.ArgumentTypeError(f"{text!r} is none of: {', '.join(names)}")
        return found

    return chosen


def card():
    """What the benchmark ran on."""
    from numbanet.targets import cuda_device

    device = cuda_device(0)
    found = {
        "name": device.name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "n_multiprocessors": device.n_multiprocessors,
        "memory": device.total_memory,
        "driver": "unknown",
    }
    query = ["nvidia-smi", "--id=0", "--format=csv,noheader", "--query-gpu=driver_version"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        found["driver"] = answer.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass  # no nvidia-smi; the rest is known
    return found


def write(report, path):
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written to {path}", flush=True)


def measure_ceilings(report):
    try:
        process = Process("gpu_ceilings:Ceilings", timeout=TIMEOUT)
        rates = [process.measure() for _ in range(3)]
        process.close()
    except MethodError as error:
        print(f"ceilings: FAILED: {error}", flush=True)
        return
    for name in rates[0]:
        best = max(rate[name] for rate in rates)
        report["ceilings"][name] = max(best, report["ceilings"].get(name, 0))


def measure_job(job, kind, options, report):
    """Start all methods at once, since most of that is compilation; then time them in turns."""
    begin = time.perf_counter()
    methods = start_methods(job, kind, options, report)
    print(f"{job}: started in {time.perf_counter() - begin:.0f} s", flush=True)
    n_rounds = N_QUICK_ROUNDS if options.quick else N_ROUNDS
    for n in options.batches:
        seconds, host = measure_size(methods, job, kind, n, n_rounds, report)
        if seconds:
            report["results"].append(summary(JOBS[job], job, kind, n, seconds, host, list(OWN)))
            print_result(report["results"][-1])
    for process, _ in methods.values():
        process.close()


def leave_out(report, name, job, error, n=None):
    why = "not installed" if isinstance(error, MethodMissing) else f"FAILED in {report['kind']}"
    entry = {"method": name, "config": job, "batch_size": n, "why": f"{why}: {error}"}
    report["left_out"].append(entry)
    at = "" if n is None else f" at {n}"
    print(f"{job} {name:17} left out{at}, {entry['why']}", flush=True)


def start_methods(job, kind, options, report):
    """Return by name the processes of all methods that agree with float64, and their sizes."""
    expected = Expected(JOBS[job], kind)

    def start(name):
        process = None
        try:
            process = Process("gpu_session:Session", METHODS[name], job, timeout=TIMEOUT)
            facts = process.describe()
            errors = expected.errors(process, facts)
            check(errors, facts["precision"])
            return process, facts | {"errors": errors}, process.prepare(kind, options.batches)
        except MethodError as error:
            if process:
                process.close()
            return None, error, None

    with ThreadPoolExecutor(len(options.methods)) as pool:
        started = dict(zip(options.methods, pool.map(start, options.methods), strict=True))
    methods = {}
    for name, (process, facts, first_calls) in started.items():
        if process is None:
            leave_out(report, name, job, facts)
            continue
        report["versions"] |= facts.pop("versions")
        facts["first_calls"] = first_calls
        report["methods"].setdefault(name, {})[job] = facts
        worst = ", ".join(f"{what} {error:.0e}" for what, error in facts["errors"].items())
        print(f"{job} {name:17} agrees with float64 (relative errors: {worst})", flush=True)
        for n, result in first_calls.items():
            if isinstance(result, str):
                leave_out(report, name, job, result, n)
        sizes = {n for n, result in first_calls.items() if not isinstance(result, str)}
        methods[name] = process, sizes
    return methods


class Expected:
    """What a method has to compute, in float64."""

    def __init__(self, job, kind):
        rng = np.random.default_rng(7)
        n_batches = VERIFIED_STEPS if kind == "training" else 1
        batch = job.batch(n_batches * VERIFIED_BATCH, rng)
        self.kind = kind
        parts = [np.split(array, n_batches) for array in batch]
        self.batches = list(zip(*parts, strict=True))
        self.params = job.initial_params(table_scale=0.5)  # features and outputs far from zero
        first = self.batches[0][0][:VERIFIED_OUTPUTS]
        self.outputs = job.reference(self.params, True).forward(first)[-1]
        self.losses = {skips: self.losses_of(job, skips) for skips in (True, False)}

    def losses_of(self, job, skips_zero_gradients):
        reference = job.reference(self.params, skips_zero_gradients)
        return [reference.step(*batch) for batch in self.batches if self.kind == "training"]

    def errors(self, process, facts):
        """Return the largest relative errors of a method."""
        outputs, losses = process.verify(self.kind, self.params, self.batches)
        difference = outputs[:VERIFIED_OUTPUTS] - self.outputs
        errors = {"outputs": np.linalg.norm(difference) / np.linalg.norm(self.outputs)}
        if self.kind == "training":
            expected = np.array(self.losses[facts["skips_zero_gradients"]])
            errors["loss"] = np.max(np.abs(losses / expected - 1))
        return {what: float(error) for what, error in errors.items()}


def check(errors, precision):
    for what, error in errors.items():
        allowed = TOLERANCES[precision][what]
        if not error <= allowed:
            raise MethodError(
                f"{what} differs from the float64 reference by {error:.1e}, allowed {allowed:.0e}"
            )


def measure_size(methods, job, kind, n, n_rounds, report):
    """Return by method the seconds of a call in every round, and those of the host."""
    n_repeats, seconds, host = {}, {}, {}

    def attempt(name, function, *args):
        process, sizes = methods[name]
        try:
            return getattr(process, function)(kind, n, *args)
        except MethodError as error:
            leave_out(report, name, job, error, n)
            sizes.clear()  # its process has ended
            seconds.pop(name, None)
            return None

    for name in [name for name, (_, sizes) in methods.items() if n in sizes]:
        estimate = attempt(name, "measure", 2)
        if estimate is not None:
            n_repeats[name] = min(max(math.ceil(ROUND_SECONDS / estimate), 2), MOST_REPEATS)
            host[name] = attempt(name, "measure_host")
            if host[name] is not None:
                seconds[name] = []
    for i in range(n_rounds):
        names = list(seconds)
        for name in names[i % len(names) :] + names[: i % len(names)] if names else ():
            measured = attempt(name, "measure", n_repeats[name])
            if measured is not None:
                seconds[name].append(measured)
    return seconds, host
