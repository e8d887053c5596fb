"""Measure what gradients of the inputs cost a training step on a GPU.

    python -m benchmarks.scripts.gpu_input_gradients [--batches 2^14,2^18]

Gradients of the parameters alone, with those of the inputs, and those of the inputs alone, in the
fused kernels and in the chain of kernels, in turns; medians in microseconds, least and most. The
optimizer does not run. Before anything is timed they are compared with the chain in float32.
"""

import argparse
import sys
from functools import partial

import numpy as np

from benchmarks.harness.gpu import gpu_is_usable
from benchmarks.harness.jobs import JOBS
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.samples import NAMES
from benchmarks.harness.turns import medians, on_device
from benchmarks.methods.numbanet_gpu import Chain, Float32, Fused

MODES = {  # whether of the inputs, and what becomes of those of the parameters
    "parameters": (False, "overwrite"),
    "both": (True, "overwrite"),
    "inputs": (True, "ignore"),
}
MARGIN = 1.5


def step(method, batch, dl_dx, mode):
    has_inputs, gradient_mode = MODES[mode]
    options = {"run_optimizer": False, "gradient_mode": gradient_mode}
    return method.trainer.training_step(*batch, dl_dinput=dl_dx if has_inputs else None, **options)


def gradients(method, batch, dl_dx, mode):
    """Gradients that a step computes, by name."""
    method.target.copy_from_host(dl_dx, np.full(dl_dx.shape, np.nan))
    step(method, batch, dl_dx, mode)
    has_inputs, gradient_mode = MODES[mode]
    found = {"inputs": dl_dx} if has_inputs else {}
    if gradient_mode == "overwrite":
        found["parameters"] = method.trainer.network.gradients
    return {name: np.asarray(array.numpy(), np.float64) for name, array in found.items()}


def assert_as_exact(methods, job, params, batch, dl_dx):
    """The fused kernels' errors against float32 are about those of the chain, in halves too."""
    reference = Float32(job, params)
    for mode in MODES:
        exact = gradients(reference, batch, dl_dx, mode)
        found = {way: gradients(method, batch, dl_dx, mode) for way, method in methods.items()}
        for name, right in exact.items():
            errors = {
                way: np.linalg.norm(each[name] - right) / np.linalg.norm(right)
                for way, each in found.items()
            }
            text = ", ".join(f"{way} {error:.1e}" for way, error in errors.items())
            print(f"{mode}, relative errors of the gradients of the {name}: {text}")
            if not errors["fused"] <= MARGIN * errors["chain"]:
                sys.exit("the fused kernels are less exact")


def measure(name, n):
    job = JOBS[name]
    params = job.initial_params(table_scale=0.5)
    methods = {"fused": Fused(job, params), "chain": Chain(job, params)}
    first = methods["fused"]
    batch = tuple(map(first.place, job.batch(n, np.random.default_rng(0))))
    dl_dx = first.target.empty(n, job.n_inputs)
    print(f"\n{name}, {n} samples")
    assert_as_exact(methods, job, params, batch, dl_dx)
    for mode in MODES:
        calls = {way: partial(step, method, batch, dl_dx, mode) for way, method in methods.items()}
        times = on_device(first.target.device, calls, n)
        print(f"{mode:10} {medians(times)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^18"))
    options = parser.parse_args()
    if not gpu_is_usable():
        return
    for name in NAMES:
        for n in options.batches:
            measure(name, n)


if __name__ == "__main__":
    main()
