"""A method in a process of its own: thread pools do not meet, and a crash costs only its row."""

import contextlib
import importlib
import multiprocessing
import time

import numpy as np
from image_job import Photograph, initial_params

N_BATCHES = 4  # rotated, so that no method meets the same entries twice in a row
TIMEOUT = 600  # seconds, compilation included


class MethodError(Exception):
    """The method could not do what it was asked to."""


class MethodMissing(MethodError):
    """The method's framework is not installed."""


class Session:
    """What the process does when it is told to."""

    def __init__(self, method, image):
        self.make = find(method)
        self.photograph = Photograph(image)
        self.method = self.make(initial_params())
        self.batches = {}

    def describe(self):
        """Return the versions and whether Adam leaves entries without a gradient alone."""
        return self.method.versions(), getattr(self.make, "skips_zero_gradients", True)

    def placed(self, batch):
        return tuple(map(self.method.place, batch))

    def verify(self, params, batches):
        """Return loss and gradients of the first batch, then take a step on each of them."""
        self.method = self.make(params)
        first, *_ = placed = [self.placed(batch) for batch in batches]
        loss, gradients = self.method.loss_and_gradients(*first)
        for batch in placed:
            self.method.wait(self.method.step(*batch))
        outputs = self.method.numpy(self.method.inference(first[0]))
        return {
            "loss": loss,
            "gradients": gradients,
            "params": self.method.params(),
            "outputs": outputs,
        }

    def prepare(self, job, n):
        """Do the job once and return the seconds it took: compilation, mostly."""
        rng = np.random.default_rng(n)
        self.batches = {n: [self.placed(self.photograph.batch(n, rng)) for _ in range(N_BATCHES)]}
        start = time.perf_counter()
        self.method.wait(self.run(job, self.batches[n][0]))
        return time.perf_counter() - start

    def run(self, job, batch):
        return self.method.step(*batch) if job == "training" else self.method.inference(batch[0])

    def measure(self, job, n, n_repeats):
        """Return seconds per repetition, after one that wakes the threads up."""
        self.method.wait(self.run(job, self.batches[n][0]))
        start = time.perf_counter()
        for i in range(n_repeats):
            result = self.run(job, self.batches[n][i % N_BATCHES])
        self.method.wait(result)
        return (time.perf_counter() - start) / n_repeats

    def learn(self, n_steps, n):
        """Learn the photograph from the start and return the PSNRs and the seconds it took."""
        self.method = self.make(initial_params())
        rng = np.random.default_rng(0)
        start = time.perf_counter()
        for _ in range(n_steps):
            self.method.step(*self.placed(self.photograph.batch(n, rng)))
        centres = self.method.place(self.photograph.pixel_centres())
        outputs = self.method.numpy(self.method.wait(self.method.inference(centres)))
        return *self.photograph.psnr(outputs), time.perf_counter() - start


def find(where):
    """Import "module:Class"."""
    module, name = where.split(":")
    return getattr(importlib.import_module(module), name)


def serve(connection, make, args):
    try:
        session = find(make)(*args)
        connection.send((None, None))
        while True:
            name, args = connection.recv()
            connection.send((None, getattr(session, name)(*args)))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        kind = MethodMissing if isinstance(error, ImportError) else MethodError
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        connection.send((kind, text))


class Process:
    """An object "module:Class" made elsewhere: `process.measure(...)` is its `measure(...)`.

    Raises:
        MethodMissing: its framework is not there.
        MethodError: it failed, died or took too long.
    """

    def __init__(self, make, *args, timeout=TIMEOUT):
        self.timeout = timeout
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, make, args), daemon=True)
        self.process.start()
        theirs.close()
        self.receive()

    def __getattr__(self, name):
        def call(*args):
            with contextlib.suppress(OSError):  # it has died: receive() says so
                self.connection.send((name, args))
            return self.receive()

        return call

    def receive(self):
        try:
            if not self.connection.poll(self.timeout):
                self.process.kill()
                raise MethodError(f"no answer within {self.timeout} s")
            kind, result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise MethodError(f"the process died (exit code {self.process.exitcode})") from None
        if kind is not None:
            raise kind(result)
        return result

    def close(self):
        self.connection.close()
        self.process.join(timeout=5)
        self.process.kill()
