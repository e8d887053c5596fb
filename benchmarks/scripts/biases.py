"""Cost of a bias for each layer: a training step and an inference, with and without, in turns.

    python -m benchmarks.scripts.biases [--device cpu] [--batches 2^14,2^16]

config_hash on random samples. Wall clock, a GPU synchronised at both ends; the ratio is the median
of those of the rounds.
"""

import argparse
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.samples import HASH
from benchmarks.harness.turns import in_turns, microseconds

N_ROUNDS, ROUND = 15, 1 << 17  # samples of a round


def measure(n: int, device: str) -> None:
    models = [
        numbanet.create_from_config(
            2, 3, {**HASH, "network": {**HASH["network"], "bias": bias}}, device=device
        )
        for bias in (False, True)
    ]
    target, rng = models[0].network.target, np.random.default_rng(0)
    x, y = (target.from_host(rng.random((n, k), np.float32)) for k in (2, 3))
    synchronize = (lambda: None) if target.name == "cpu" else target.device.synchronize
    clock = partial(microseconds, n_calls=max(ROUND // n, 2), synchronize=synchronize)
    for title, calls in {
        "step": [partial(model.trainer.training_step, x, y) for model in models],
        "inference": [partial(model, x) for model in models],
    }.items():
        times = in_turns(clock, dict(enumerate(calls)), N_ROUNDS)
        without, biased = (float(np.median(times[k])) for k in (0, 1))
        ratio = float(np.median(np.divide(times[1], times[0])))
        print(f"{n}, {title}: {without:.0f} us, with biases {biased:.0f} us, {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^16"))
    options = parser.parse_args()
    for n in options.batches:
        measure(n, options.device)


if __name__ == "__main__":
    main()
