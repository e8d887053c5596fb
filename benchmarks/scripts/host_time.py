"""Measure what Python takes of a training step that comes again, and of inference.

    python -m benchmarks.scripts.host_time [CONFIG]

Needs no GPU: there is nothing behind the device, so the driver's own calls are to be added: one
launch, of a graph or of a kernel.
"""

import sys
import time
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.samples import sample
from numbanet.cuda.driver.compile_only import CompileOnlyDevice

DIMS = (2, 3)  # of images
N_SAMPLES, N_BATCHES = 1024, 4
N_CALLS, N_REPETITIONS = 100, 200


def microseconds(call) -> tuple[float, float]:
    """The least and the median time of a call."""
    times = []
    for _ in range(N_REPETITIONS):
        start = time.perf_counter()
        for i in range(N_CALLS):
            call(i)
        times.append(1e6 * (time.perf_counter() - start) / N_CALLS)
    return min(times), float(np.median(times))


def main(name: str = "config_hash") -> None:
    device = CompileOnlyDevice((9, 0), assembles=False)
    model = numbanet.create_from_config(*DIMS, sample(name), device=device, precision="float16")
    place = model.network.target.empty
    batches = [tuple(place(N_SAMPLES, k) for k in DIMS) for _ in range(N_BATCHES)]

    def step(i):
        model.trainer.training_step(*batches[i % N_BATCHES])
        device.launches.clear()

    def infer(i, out=None):
        model(batches[i % N_BATCHES][0], out=out)
        device.launches.clear()

    infer_to = partial(infer, out=place(N_SAMPLES, DIMS[1]))
    for title, call in (
        ("training step", step),
        ("inference", infer),
        ("inference with out=", infer_to),
    ):
        for i in range(3 * N_BATCHES):  # compiles, and captures graphs
            call(i)
        least, median = microseconds(call)
        print(f"{name}, {title}: {least:.1f} us, median {median:.1f} us")


if __name__ == "__main__":
    main(*sys.argv[1:])
