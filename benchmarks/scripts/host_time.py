"""Measure what a training step that comes again takes of the host, and inference.

    python -m benchmarks.scripts.host_time [--config config_hash] [--samples 1024] [--device cuda]

Without --device there is no need for a GPU: there is nothing behind the device, so this is Python
alone, and the driver's own calls are to be added: one launch of a graph. Outputs that an inference
allocates lie at new addresses there, so that none is found again. On a GPU, which is waited for
before each round, the driver's calls are included.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.samples import NAMES, sample
from numbanet.cuda.driver.compile_only import CompileOnlyDevice

DIMS = (2, 3)  # of images
N_BATCHES = 4
N_CALLS, N_REPETITIONS = 100, 200


def microseconds(call: Callable, begin: Callable) -> tuple[float, float]:
    """The least and the median time of a call; `begin` is called before each round."""
    times = []
    for _ in range(N_REPETITIONS):
        begin()
        start = time.perf_counter()
        for i in range(N_CALLS):
            call(i)
        times.append(1e6 * (time.perf_counter() - start) / N_CALLS)
    return min(times), float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--config", choices=NAMES, default=NAMES[0])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--device", choices=("none", "cuda"), default="none")
    options = parser.parse_args()
    name, on_gpu = options.config, options.device == "cuda"
    device = "cuda" if on_gpu else CompileOnlyDevice((9, 0), assembles=False)
    model = numbanet.create_from_config(*DIMS, sample(name), device=device, precision="float16")
    target = model.network.target
    begin = target.device.synchronize if on_gpu else target.device.launches.clear
    batches = [tuple(target.zeros(options.samples, k) for k in DIMS) for _ in range(N_BATCHES)]

    def step(i):
        model.trainer.training_step(*batches[i % N_BATCHES])

    def infer(i, out=None):
        model(batches[i % N_BATCHES][0], out=out)

    infer_to = partial(infer, out=target.empty(options.samples, DIMS[1]))
    for title, call in (
        ("training step", step),
        ("inference", infer),
        ("inference with out=", infer_to),
    ):
        for i in range(3 * N_BATCHES):  # compiles, and captures graphs
            call(i)
        least, median = microseconds(call, begin)
        print(f"{name}, {title}: {least:.1f} us, median {median:.1f} us")


if __name__ == "__main__":
    main()
