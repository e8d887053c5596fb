"""What the process of a GPU method does: verification, and timing with CUDA events."""

import time

import numpy as np
from gpu_jobs import JOBS
from method_process import find

from numbanet.cuda.driver_calls import bindings, checked, handle_of

N_BATCHES = 4  # rotated, so that no method meets the same entries twice in a row
N_QUEUED, N_HOST_ROUNDS = 4, 7  # for the host's time: few enough that the driver's queue has room


class Clock:
    """Seconds between two moments of a stream, measured by the GPU."""

    def __init__(self, stream):
        self.driver = bindings()
        self.context = checked(self.driver.cuDevicePrimaryCtxRetain(handle_of(0)))
        self.stream = self.driver.CUstream(stream)
        self.first, self.last = (self.call("cuEventCreate", 0) for _ in range(2))

    def call(self, name, *args):
        checked(self.driver.cuCtxPushCurrent(self.context))
        try:
            return checked(getattr(self.driver, name)(*args))
        finally:
            self.driver.cuCtxPopCurrent()

    def start(self):
        self.call("cuEventRecord", self.first, self.stream)

    def stop(self):
        """Wait for what was queued and return the seconds since start()."""
        self.call("cuEventRecord", self.last, self.stream)
        self.call("cuEventSynchronize", self.last)
        return 1e-3 * self.call("cuEventElapsedTime", self.first, self.last)


class WallClock:
    """The same for a method whose stream is not known; it must have been waited for."""

    def start(self):
        self.started = time.perf_counter()

    def stop(self):
        return time.perf_counter() - self.started


class Session:
    """What the process does when it is told to."""

    def __init__(self, method, job):
        self.job, self.make = JOBS[job], find(method)
        self.method = self.make(self.job, self.job.initial_params())
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

    def verify(self, kind, params, batches):
        """Return outputs of the first batch, and for training the loss before each step."""
        method = self.method = self.make(self.job, params)  # kept, so as to compile once
        placed = [self.placed(batch) for batch in batches]
        outputs = method.numpy(method.wait(method.inference(placed[0][0])))
        number = getattr(method, "number", float)
        losses = [number(method.step(*batch)) for batch in placed] if kind == "training" else []
        return np.asarray(outputs, np.float64), losses

    def prepare(self, kind, sizes):
        """Return by size the seconds of the first call, compilation mostly, or why it failed."""
        most = max(sizes)
        pool = self.job.batch(most, np.random.default_rng(0))
        results = {}
        for n in sorted(sizes):
            starts = range(0, min(N_BATCHES * n, most - n + 1), n)
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
        return self.method.step(inputs, targets) if kind == "training" else (
            self.method.inference(inputs)
        )  # fmt: skip

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
