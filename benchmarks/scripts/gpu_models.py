"""Measure the models that people train most, on a GPU: a step, and an inference.

    python -m benchmarks.scripts.gpu_models [--models NAME,...] [--batches 2^14,2^16,2^18]

A step is timed with gradients of tables added up apart, in shared memory, and with these added up
within the fused kernel, in turns. Wall clock, the device synchronised at both ends of a round;
medians in microseconds. Gradients are compared with those of float32 before.
"""

import argparse
import sys
import time
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.options import batch_sizes

GRID = {
    "otype": "HashGrid", "n_levels": 16, "n_features_per_level": 2, "base_resolution": 16,
    "log2_hashmap_size": 19, "per_level_scale": 1.447,
}  # fmt: skip
SDF = {"n_levels": 8, "n_features_per_level": 4, "per_level_scale": 1.6}
FREQUENCY = {"otype": "Frequency", "n_frequencies": 10}
HARMONICS = {
    "otype": "Composite",
    "nested": [
        {**GRID, "n_dims_to_encode": 3},
        {"otype": "SphericalHarmonics", "degree": 4, "n_dims_to_encode": 3},
    ],
}
# name -> n_input_dims, n_output_dims, encoding, n_neurons, n_hidden_layers
MODELS = {
    "image": (2, 3, {**GRID, "log2_hashmap_size": 15, "per_level_scale": 1.5}, 64, 2),
    "density": (3, 16, GRID, 64, 1),
    "field": (3, 4, GRID, 64, 2),
    "distance": (3, 1, {**GRID, **SDF}, 64, 2),
    "large_image": (2, 3, {**GRID, "per_level_scale": 1.5}, 64, 2),
    "small_field": (3, 4, {**GRID, "log2_hashmap_size": 15}, 64, 2),
    "grid_and_harmonics": (6, 4, HARMONICS, 64, 2),
    "frequencies": (3, 4, FREQUENCY, 64, 4),
}
N_ROUNDS, ROUND = 7, 1 << 24  # samples of a round, at most 60 calls
NEVER, MOST_ERROR = 1 << 62, 0.05


def create(name, precision, fewest=None):
    """A model whose tables are added up apart from so many samples on."""
    n_inputs, n_outputs, encoding, n_neurons, n_hidden_layers = MODELS[name]
    network = {"n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}
    config = {
        "loss": {"otype": "L2"},
        "optimizer": {"otype": "Adam", "learning_rate": 1e-3},
        "encoding": encoding,
        "network": {"otype": "FullyFusedMLP", **network},
    }
    model = numbanet.create_from_config(
        n_inputs, n_outputs, config, device="cuda", precision=precision
    )
    if fewest is not None:
        model.network.engine.tables.fewest = fewest
    return model


def gradients(model, params, batch):
    model.network.params = params
    model.trainer.training_step(*batch, run_optimizer=False)
    return model.network.gradients.numpy().astype(np.float64)


def microseconds(device, call, n):
    n_calls = max(min(60, ROUND // n), 5)
    device.synchronize()
    begun = time.perf_counter()
    for _ in range(n_calls):
        call()
    device.synchronize()
    return 1e6 * (time.perf_counter() - begun) / n_calls


def measure(name, sizes):
    ways = {"step": create(name, "float16")}
    if ways["step"].network.engine.batch_sizes:
        ways = {"apart": create(name, "float16", 1), "within": create(name, "float16", NEVER)}
    first, exact = next(iter(ways.values())), create(name, "float32")
    target = first.network.target
    rng = np.random.default_rng(0)
    params = first.network.params.numpy()
    table = slice(first.network.network.n_params, None)
    params[table] = rng.uniform(-0.5, 0.5, params[table].shape)
    for n in sizes:
        widths = first.network.n_input_dims, first.network.n_output_dims
        batch = [target.from_host(rng.random((n, k), dtype=np.float32)) for k in widths]
        right = gradients(exact, params, batch)
        calls = {}
        for way, model in ways.items():
            error = np.linalg.norm(gradients(model, params, batch) - right) / np.linalg.norm(right)
            if not error < MOST_ERROR:
                sys.exit(f"{name}, {n} samples, {way}: gradients are off by {error:.1e}")
            calls[way] = partial(model.trainer.training_step, *batch)
        calls["inference"] = partial(first, batch[0])
        times = {way: [] for way in calls}
        for call in calls.values():
            for _ in range(5):
                call()
        for _ in range(N_ROUNDS):
            for way, call in calls.items():
                times[way].append(microseconds(target.device, call, n))
        cells = [f"{way} {np.median(found):7.1f}" for way, found in times.items()]
        print(f"{name:18} 2^{n.bit_length() - 1:<3}{', '.join(cells)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^16,2^18"))
    options = parser.parse_args()
    from numbanet.cuda.driver.device import why_not

    reason = why_not()
    if reason is not None:
        print(f"Nothing is measured, because no GPU can be used: {reason}")
        return
    for name in options.models:
        measure(name, options.batches)


if __name__ == "__main__":
    main()
