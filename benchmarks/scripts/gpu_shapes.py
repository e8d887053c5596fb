"""Measure how a block is best divided on a GPU, and what it costs if weights do not fit.

    python -m benchmarks.scripts.gpu_shapes [--batches 2^14,2^18] [--only 'hash grid']

First, networks whose weights do not fit a block's shared memory: they come one matrix after the
other, beside the chain of kernels. Then training where they do fit, with weights that stay and that
come one after the other, and inference by blocks of several shapes. All are checked against float32
first. Medians of rounds in turns, in microseconds, the host included where it takes longer than the
GPU; the optimizer does not run.
"""

import argparse
import sys
from dataclasses import replace
from functools import partial

import numpy as np

import numbanet
from benchmarks.harness.gpu import gpu_is_usable
from benchmarks.harness.grid import GRID
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.samples import ONE_BLOB as ONE_BLOB_CONFIG
from benchmarks.harness.turns import medians, on_device
from numbanet.cuda.driver.device import RESERVED
from numbanet.cuda.fused.shapes import FusedShape

GRID_19 = {**GRID, "log2_hashmap_size": 19, "per_level_scale": 1.38}
GRID_22 = {**GRID, "log2_hashmap_size": 22, "per_level_scale": 1.6}
ONE_BLOB, IDENTITY = ONE_BLOB_CONFIG["encoding"], {"otype": "Identity"}
FREQUENCY = {"otype": "Frequency", "n_frequencies": 12}
# encoding, inputs, outputs, neurons, hidden layers
DEEP = {
    "OneBlob, 128 wide, 8 layers": (ONE_BLOB, 2, 3, 128, 8),
    "hash grid, 128 wide, 8 layers": (GRID, 2, 3, 128, 8),
}
FITTING = {
    "OneBlob, 64 wide, 4 layers": (ONE_BLOB, 2, 3, 64, 4),
    "OneBlob, 128 wide, 2 layers": (ONE_BLOB, 2, 3, 128, 2),
    "OneBlob, 128 wide, 5 layers": (ONE_BLOB, 2, 3, 128, 5),
    "hash grid, 128 wide, 4 layers": (GRID, 2, 3, 128, 4),
    "hash grid, 128 wide, 2 layers": (GRID, 2, 3, 128, 2),
    "Identity, 128 wide, 3 layers": (IDENTITY, 32, 32, 128, 3),
    "Identity, 96 wide, 3 layers": (IDENTITY, 32, 32, 96, 3),
    "frequencies, 64 wide, 4 layers": (FREQUENCY, 3, 4, 64, 4),
    "hash grid, 32 wide, 2 layers": (GRID, 2, 3, 32, 2),
    "hash grid, 64 wide, 2 layers": (GRID, 2, 3, 64, 2),
    "hash grid in 3-D, 2^19 entries, 64 wide, 2 layers": (GRID_19, 3, 16, 64, 2),
    "hash grid in 3-D, 2^22 entries, 64 wide, 2 layers": (GRID_22, 3, 16, 64, 2),
}
WIDE = {"OneBlob, 128 wide, 5 layers": FITTING["OneBlob, 128 wide, 5 layers"]}
# warps of a block, blocks that registers are left for and blocks that are started on a
# multiprocessor, whether weights come one matrix after the other
SHAPES = (
    (8, 2, 2, False),
    (8, 2, 1, False),
    (8, 1, 1, False),
    (4, 4, 2, False),
    (4, 2, 2, False),
    (4, 1, 1, False),
    (6, 1, 1, False),
    (8, 1, 1, True),
)
MARGIN = 1.5


def create(job, **options):
    encoding, n_inputs, n_outputs, n_neurons, n_hidden_layers = job
    network = {"otype": "FullyFusedMLP", "n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}
    config = {"encoding": encoding, "network": network, "loss": {"otype": "RelativeL2"}}
    options = {"device": "cuda", "precision": "float16", **options}
    return numbanet.create_from_config(n_inputs, n_outputs, config, **options)


def with_shape(job, n_warps, n_blocks, n_started, streams):
    """A model whose inference has this shape, or None if that does not fit."""
    model = create(job)
    engine, device = model.network.engine, model.network.target.device
    layout = replace(engine.fused.inference_shape.layout, n_warps=n_warps, streams=streams)
    if n_blocks * (layout.shared_bytes + RESERVED) > device.max_shared_bytes + RESERVED:
        return None
    engine.fused.inference_shape = FusedShape(layout, n_blocks, n_started)
    device._built.clear()  # shapes that share their code would share its share of the cache too
    model(np.zeros((1, job[1]), np.float32))
    return model


def with_streams(job, streams):
    """A model that is trained in two kernels, whose weights stay in shared memory or do not."""
    model = create(job)
    wide = model.network.engine.wide
    wide.layout = replace(wide.layout, streams=streams)
    return model


def batch_of(job, n, model):
    rng = np.random.default_rng(0)
    return [model.network.target.from_host(rng.random((n, k), np.float32)) for k in job[1:3]]


def results(model, x, y):
    """Outputs, and gradients of the parameters."""
    model.trainer.training_step(x, y, run_optimizer=False)
    return [np.asarray(a) for a in (model(x), model.network.gradients)]


def assert_as_exact(models, job, x, y):
    """Check outputs and gradients: their errors against float32 are about those of the chain.

    Raises:
        SystemExit: one computes something else.
    """
    exact = results(create(job, precision="float32"), x, y)

    def errors(model):
        pairs = zip(results(model, x, y), exact, strict=True)
        return [np.linalg.norm(found - right) / np.linalg.norm(right) for found, right in pairs]

    of_chain = errors(create(job, fused=False))
    for name, model in models.items():
        for error, allowed in zip(errors(model), of_chain, strict=True):
            if not error <= MARGIN * allowed:
                sys.exit(f"{name}: an error of {error:.1e}, where the chain has {allowed:.1e}")


def compare(title, models, n, call):
    """Print the medians of a call of each model."""
    calls = {name: partial(call, model) for name, model in models.items()}
    device = next(iter(models.values())).network.target.device
    print(f"{title}: {medians(on_device(device, calls, n))}", flush=True)


def infer(x):
    return lambda model: model(x)


def step(x, y):
    return lambda model: model.trainer.training_step(x, y, run_optimizer=False)


def compare_deep(name, job, n):
    models = {"streamed": create(job), "chain": create(job, fused=False)}
    engine = models["streamed"].network.engine
    if not (engine.fused.inference_shape.layout.streams and engine.wide.layout.streams):
        print(f"{name}: left out, because all weights fit the shared memory of this GPU")
        return
    x, y = batch_of(job, n, models["chain"])
    assert_as_exact(models, job, x, y)
    compare(f"{name}, {n}, inference", models, n, infer(x))
    compare(f"{name}, {n}, training", models, n, step(x, y))


def compare_training(name, job, n):
    models = {"resident": with_streams(job, False), "streamed": with_streams(job, True)}
    x, y = batch_of(job, n, models["streamed"])
    assert_as_exact(models, job, x, y)
    compare(f"{name}, {n}, training", models, n, step(x, y))


def compare_shapes(name, job, n):
    models = {shape: with_shape(job, *shape) for shape in SHAPES}
    models = {
        f"{w} warps x {started} of {b}{' streamed' if streams else ''}": model
        for (w, b, started, streams), model in models.items()
        if model
    }
    x, y = batch_of(job, n, next(iter(models.values())))
    assert_as_exact(models, job, x, y)
    compare(f"{name}, {n}, inference", models, n, infer(x))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^18"))
    parser.add_argument("--only", default="", help="models whose names contain this")
    options = parser.parse_args()
    if not gpu_is_usable():
        return
    measures = (compare_deep, DEEP), (compare_training, WIDE), (compare_shapes, FITTING)
    for measure, jobs in measures:
        for name in filter(lambda name: options.only in name, jobs):
            for n in options.batches:
                measure(name, jobs[name], n)


if __name__ == "__main__":
    main()
