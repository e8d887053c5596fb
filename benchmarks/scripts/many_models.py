"""Measure many small models side by side, beside one model with as many samples.

    python -m benchmarks.scripts.many_models [--models 256] [--batches 2^8,2^10]

A step of create_many's models with batches of their own, in turns with a step of one model on a
batch as large as all these together. Wall clock, medians.
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


def measure(n_models, n):
    rng = np.random.default_rng(0)
    x = rng.random((n_models, n, N_DIMS), np.float32)
    y = rng.random((n_models, n, N_OUTPUTS), np.float32)
    flat = x.reshape(-1, N_DIMS), y.reshape(-1, N_OUTPUTS)
    many = numbanet.create_many(N_DIMS, N_OUTPUTS, CONFIG, n_models, device="cpu")
    one = numbanet.create_from_config(N_DIMS, N_OUTPUTS, CONFIG, device="cpu")
    calls = {
        "many": lambda: many.training_step(x, y),
        "one": lambda: one.trainer.training_step(*flat),
    }
    times = in_turns(partial(microseconds, n_calls=3), calls, n_warm=2)
    taken = {name: float(np.median(each)) for name, each in times.items()}
    rates = {name: n_models * n / each for name, each in taken.items()}
    print(
        f"{n_models} models, {n} samples each: {rates['many']:.2f} M samples/s; "
        f"one model, {n_models * n}: {rates['one']:.2f}; {taken['one'] / taken['many']:.0%}",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=int, default=256)
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^8,2^10"))
    options = parser.parse_args()
    for n in options.batches:
        measure(options.models, n)


if __name__ == "__main__":
    main()
