"""Session of a method's process: verification, and timing."""

import time

import numpy as np

from benchmarks.harness.clocks import Clock, WallClock
from benchmarks.harness.jobs import JOBS
from benchmarks.harness.process import find
from benchmarks.harness.verification import TABLE_SCALE

N_BATCHES = 4  # rotated, so that no method meets the same entries twice in a row
MOST_SAMPLES = 2**21  # of all batches, where none is larger
N_QUEUED, N_HOST_ROUNDS = 4, 7  # for the host's time: few enough that the driver's queue has room


class Session:
    def __init__(self, method, job):
        self.job, self.make = JOBS[job], find(method)
        self.method = self.make(self.job, self.job.initial_params(TABLE_SCALE))
        stream = self.method.stream
        self.clock = WallClock() if stream is None else Clock(stream)
        self.batches = {}

    def describe(self):
        return {
            "versions": self.method.versions(),
            "precision": self.method.precision,
            "skips_zero_gradients": self.method.skips_zero_gradients,
            "clock": "wall" if isinstance(self.clock, WallClock) else "events",
        }

    def placed(self, batch):
        return tuple(map(self.method.place, batch))

    def verify(self, kind, batches):
        """Return what is compared with float64: of the first batch, and of a step on each."""
        method = self.method
        first, *_ = placed = [self.placed(batch) for batch in batches]
        found = {"outputs": np.asarray(method.numpy(method.wait(method.inference(first[0]))), "d")}
        if kind == "training":
            found["loss"], found["gradients"] = method.loss_and_gradients(*first) or (None, None)
            found["losses"] = [method.number(method.wait(method.step(*batch))) for batch in placed]
            found["params"] = method.params()
        return found

    def prepare(self, kind, sizes):
        """Return by size the seconds of the first call, compilation mostly, or why it failed."""
        n_samples = max(*sizes, min(N_BATCHES * max(sizes), MOST_SAMPLES))
        pool = self.job.batch(n_samples, np.random.default_rng(0))
        results = {}
        for n in sorted(sizes):
            starts = range(0, min(N_BATCHES * n, n_samples - n + 1), n)
            start = time.perf_counter()
            try:
                self.batches[n] = [self.placed(part[k : k + n] for part in pool) for k in starts]
                self.method.wait(self.run(kind, n, 0))
                results[n] = time.perf_counter() - start
            except Exception as error:
                results[n] = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return results

    def run(self, kind, n, i):
        inputs, targets = self.batches[n][i % len(self.batches[n])]
        if kind == "training":
            return self.method.step(inputs, targets)
        return self.method.inference(inputs)

    def measure(self, kind, n, n_repeats):
        """Return seconds per repetition, after a quarter of them to warm up."""
        for i in range(n_repeats // 4 + 1):
            result = self.run(kind, n, i)
        self.method.wait(result)
        self.clock.start()
        for i in range(n_repeats):
            result = self.run(kind, n, i)
        if isinstance(self.clock, WallClock):
            self.method.wait(result)
        return self.clock.stop() / n_repeats

    def measure_host(self, kind, n):
        """Return the seconds for which a call keeps the host, when the GPU has nothing to do."""
        seconds = []
        for _ in range(N_HOST_ROUNDS):
            start = time.perf_counter()
            for i in range(N_QUEUED):
                result = self.run(kind, n, i)
            seconds.append((time.perf_counter() - start) / N_QUEUED)
            self.method.wait(result)
        return float(np.median(seconds))

    def learn(self, n_steps, n):
        """Learn the photograph from the start and return the PSNRs and the seconds it took."""
        photograph = self.job.photograph
        self.method = self.make(self.job, self.job.initial_params())
        rng = np.random.default_rng(0)
        start = time.perf_counter()
        for _ in range(n_steps):
            self.method.step(*self.placed(photograph.batch(n, rng)))
        centres = self.method.place(photograph.pixel_centres())
        outputs = self.method.numpy(self.method.wait(self.method.inference(centres)))
        return *photograph.psnr(outputs), time.perf_counter() - start
