"""Measure many small models side by side, beside one model with as many samples.

    python -m benchmarks.scripts.many_models [--device auto] [--models 256] [--batches 2^8,2^10]

A step of create_many's models with batches of their own, in turns with a step of one model on a
batch as large as all these together. Wall clock, a GPU synchronised at both ends; medians.
"""

import argparse
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.turns import in_turns, microseconds

CONFIG = {
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-3},
    "encoding": {"otype": "Frequency", "n_frequencies": 6},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 32, "n_hidden_layers": 2},
}
N_DIMS, N_OUTPUTS = 2, 3


def on_device(target, array):
    return target.from_host(array.reshape(-1, array.shape[-1])).reshape(*array.shape)


def measure(n_models, n, device):
    rng = np.random.default_rng(0)
    x = rng.random((n_models, n, N_DIMS), np.float32)
    y = rng.random((n_models, n, N_OUTPUTS), np.float32)
    flat = x.reshape(-1, N_DIMS), y.reshape(-1, N_OUTPUTS)
    many = numbanet.create_many(N_DIMS, N_OUTPUTS, CONFIG, n_models, device=device)
    one = numbanet.create_from_config(N_DIMS, N_OUTPUTS, CONFIG, device=device)
    target, options = one.network.target, {"n_calls": 3}
    x, y, *flat = (on_device(target, each) for each in (x, y, *flat))
    if target.name != "cpu":
        options = {"n_calls": 50, "synchronize": target.device.synchronize}
    calls = {
        "many": lambda: many.training_step(x, y),
        "one": lambda: one.trainer.training_step(*flat),
    }
    times = in_turns(partial(microseconds, **options), calls, n_warm=4)
    taken = {name: float(np.median(each)) for name, each in times.items()}
    rates = {name: n_models * n / each for name, each in taken.items()}
    print(
        f"{target.name}: {n_models} models, {n} samples each: {rates['many']:.2f} M samples/s; "
        f"one model, {n_models * n}: {rates['one']:.2f}; {taken['one'] / taken['many']:.0%} "
        f"({taken['many']:.1f} and {taken['one']:.1f} us a step)",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=int, default=256)
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^8,2^10"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    for n in options.batches:
        measure(options.models, n, options.device)


if __name__ == "__main__":
    main()
