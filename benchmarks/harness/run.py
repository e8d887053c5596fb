"""Runs of benchmarks on a CPU or a GPU: start and verify methods, time them in turns."""

import datetime
import json
import math
import platform
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.harness.jobs import JOBS
from benchmarks.harness.process import MethodError, MethodMissing, Process
from benchmarks.harness.report import print_result, summary
from benchmarks.harness.verification import Expected, check

SESSION = "benchmarks.harness.session:Session"
MOST_REPEATS = 1000


class Run:
    """One benchmark, and its report so far.

    Args:
        where: kind of machine, with its name.
        methods: which to measure: by name, "module:Class".
        own: the names of numbanet's. The first that is there is compared with the best rival.
        ceilings: "module:Class" that measures the machine.
        n_rounds, round_seconds: how often a method has its turn, and about how long.
        n_starting: how many methods may verify and compile at the same time.
        times_host: whether to measure also for how long a call keeps the host.
        timeout: for an answer of a method, in seconds.
    """

    def __init__(
        self, where, methods, own, ceilings, *, n_rounds, round_seconds, n_starting=1,
        times_host=False, timeout=600,
    ):  # fmt: skip
        self.methods, self.own, self.ceilings = methods, own, ceilings
        self.n_rounds, self.round_seconds = n_rounds, round_seconds
        self.n_starting, self.times_host, self.timeout = n_starting, times_host, timeout
        self.report = {
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": where,
            "versions": {"python": platform.python_version(), "numpy": np.__version__},
            "methods": {},
            "left_out": [],
            "results": [],
            "ceilings": {},
        }

    def measure(self, job, sizes):
        """Measure one of JOBS; `sizes` are the batch sizes for "training" and for "inference"."""
        self.measure_ceilings()
        begin = time.perf_counter()
        processes, ready = self.start(job, sizes)
        print(f"{job}: started in {time.perf_counter() - begin:.0f} s", flush=True)
        for kind, n in [(kind, n) for kind, numbers in sizes.items() for n in numbers]:
            names = [name for name in processes if n in ready[name][kind]]
            seconds, host = self.measure_size(job, kind, n, names, processes)
            if seconds:
                result = summary(JOBS[job], job, kind, n, seconds, host, self.own)
                self.report["results"].append(result)
                print_result(result)
        for process in processes.values():
            process.close()
        self.measure_ceilings()

    def measure_ceilings(self):
        """Keep the best of all calls as the ceiling."""
        try:
            process = Process(self.ceilings, timeout=self.timeout)
            rates = [process.measure() for _ in range(3)]
            process.close()
        except MethodError as error:
            print(f"ceilings: FAILED: {error}", flush=True)
            return
        ceilings = self.report["ceilings"]
        for name in rates[0]:
            ceilings[name] = max(*(rate[name] for rate in rates), ceilings.get(name, 0))

    def start(self, job, sizes):
        """Return the processes of all methods that agree with float64, and their sizes by kind."""
        kind = "training" if "training" in sizes else "inference"
        expected = Expected(JOBS[job], kind)

        def start(name):
            process = None
            try:
                process = Process(SESSION, self.methods[name], job, timeout=self.timeout)
                facts = process.describe()
                facts["errors"] = expected.errors(process, facts)
                check(facts["errors"], facts["precision"])
                facts["first_calls"] = {kind: process.prepare(kind, sizes[kind]) for kind in sizes}
                return process, facts
            except MethodError as error:
                if process:
                    process.close()
                return None, error

        with ThreadPoolExecutor(self.n_starting) as pool:
            started = dict(zip(self.methods, pool.map(start, self.methods), strict=True))
        processes, ready = {}, {}
        for name, (process, facts) in started.items():
            if process is None:
                self.leave_out(name, job, facts)
                continue
            processes[name] = process
            ready[name] = self.note(name, job, facts)
        return processes, ready

    def note(self, name, job, facts):
        """Record the known figures of a method in the report; return its sizes by kind."""
        self.report["versions"] |= facts.pop("versions")
        self.report["methods"].setdefault(name, {})[job] = facts
        worst = ", ".join(f"{what} {error:.0e}" for what, error in facts["errors"].items())
        print(f"{job} {name:17} agrees with float64 (relative errors: {worst})", flush=True)
        ready = {}
        for kind, first_calls in facts["first_calls"].items():
            ready[kind] = {n for n, result in first_calls.items() if not isinstance(result, str)}
            for n in first_calls.keys() - ready[kind]:
                self.leave_out(name, job, first_calls[n], kind, n)
        return ready

    def leave_out(self, name, job, error, kind=None, n=None):
        why = "not installed" if isinstance(error, MethodMissing) else "FAILED"
        entry = {"method": name, "config": job, "kind": kind, "batch_size": n}
        self.report["left_out"].append(entry | {"why": f"{why}: {error}"})
        at = "" if n is None else f" of {kind} at {n}"
        print(f"{job} {name:17} left out{at}, {why}: {error}", flush=True)

    def measure_size(self, job, kind, n, names, processes):
        """Return by method the seconds of a call in every round, and those of the host.

        A method that fails has ended: it loses this row and those to come.
        """
        n_repeats, seconds, host = {}, {}, {}

        def attempt(name, function, *args):
            try:
                return getattr(processes[name], function)(kind, n, *args)
            except MethodError as error:
                self.leave_out(name, job, error, kind, n)
                processes.pop(name).close()
                seconds.pop(name, None)
                return None

        for name in names:
            estimate = attempt(name, "measure", 2)
            if estimate is not None:
                wanted = math.ceil(self.round_seconds / estimate)
                n_repeats[name], seconds[name] = min(max(wanted, 1), MOST_REPEATS), []
            if self.times_host and name in processes:
                host[name] = attempt(name, "measure_host")
        for i in range(self.n_rounds):
            names = list(seconds)
            for name in names[i % len(names) :] + names[: i % len(names)] if names else ():
                measured = attempt(name, "measure", n_repeats[name])
                if measured is not None:
                    seconds[name].append(measured)
        return seconds, host

    def write(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}", flush=True)
