"""Measure the models that people train most, on a GPU: a step, and an inference.

    python -m benchmarks.scripts.gpu_models [--models NAME,...] [--batches 2^14,2^16,2^18]
                                            [--float32]

A step is timed with gradients of tables added up apart, in shared memory, and with these added up
within the fused kernel, in turns. Wall clock, the device synchronised at both ends of a round;
medians in microseconds. Gradients are compared with those of float32 before. With --float32, steps
in float32 are timed instead: as they are, with a kernel for each layer, and with these by
multiply-adds.
"""

import argparse
import sys
from functools import partial
from unittest.mock import patch

import numpy as np

from benchmarks.harness import real_models
from benchmarks.harness.gpu import gpu_is_usable
from benchmarks.harness.options import batch_sizes
from benchmarks.harness.real_models import MODELS
from benchmarks.harness.turns import on_device
from numbanet.cuda.chain import engine, fma, matrix_product, tensor_floats

NEVER, MOST_ERROR = 1 << 62, 0.05


def create(name, precision, fewest=None):
    """A model whose tables are added up apart from so many samples on."""
    model = real_models.create(MODELS[name], precision=precision)
    if fewest is not None:
        model.network.engine.tables.fewest = fewest
    return model


def create_float32(name, products):
    """A model in float32 with a kernel of a module for each layer, whatever the GPU."""
    with (
        patch.object(matrix_product, "products_for", lambda device, precision: products),
        patch.object(engine, "float_passes", lambda device, network, precision: None),
    ):
        return create(name, "float32")


def ways_of(name, in_float32):
    """Models, by what is compared."""
    if in_float32:
        products = {"a kernel for each layer": tensor_floats, "multiply-adds": fma}
        layers = {way: create_float32(name, module) for way, module in products.items()}
        return {"step": create(name, "float32"), **layers}
    ways = {"step": create(name, "float16")}
    if ways["step"].network.engine.batch_sizes:
        return {"apart": create(name, "float16", 1), "within": create(name, "float16", NEVER)}
    return ways


def gradients(model, params, batch):
    model.network.params = params
    model.trainer.training_step(*batch, run_optimizer=False)
    return model.network.gradients.numpy().astype(np.float64)


def measure(name, sizes, in_float32):
    ways = ways_of(name, in_float32)
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
        for way, model in ways.items() if in_float32 else [("", first)]:
            calls[f"inference {way}".rstrip()] = partial(model, batch[0])
        times = on_device(target.device, calls, n)
        cells = [f"{way} {np.median(found):7.1f}" for way, found in times.items()]
        print(f"{name:18} 2^{n.bit_length() - 1:<3}{', '.join(cells)}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--batches", type=batch_sizes, default=batch_sizes("2^14,2^16,2^18"))
    parser.add_argument("--float32", action="store_true")
    options = parser.parse_args()
    if not gpu_is_usable():
        return
    for name in options.models:
        measure(name, options.batches, options.float32)


if __name__ == "__main__":
    main()
