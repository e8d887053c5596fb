"""Prints the keys of the kernels of some models, by target, model and kernel; compiles none."""

import json
import sys
from collections import defaultdict

import models
import numba
import numpy as np
from numba.core.registry import cpu_target

import numbanet
from numbanet import code_store
from numbanet.cpu.launch import ParallelKernel
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.toolchain import compiler

ENCODINGS = {
    "frequency": {"otype": "Frequency", "n_frequencies": 2},
    "one_blob": {"otype": "OneBlob", "n_bins": 4},
    "grid": models.HASH,
}
keys = defaultdict(dict)


def config_of(name):
    network = models.mlp("FullyFusedMLP", 16, 1, "Sigmoid" if name == "one_blob" else "ReLU")
    optimizer = {"otype": "Novograd" if name == "frequency" else "Adam"}
    return models.make_config(ENCODINGS[name], network, "L1" if name == "grid" else "L2", optimizer)


def cpu_keys(name):
    def record(kernel, *arguments):
        cache, codegen = kernel.dispatcher._cache, cpu_target.target_context.codegen()
        path = cache._path(tuple(map(numba.typeof, arguments)), codegen)
        keys[f"cpu {name}"][kernel.dispatcher.py_func.__name__] = path.name

    ParallelKernel.__call__ = record
    run(name, device="cpu")


def cuda_keys(name):
    def record(kernel, suffix, key):
        keys[f"cuda {name}"][kernel] = repr(key)
        return path_of(kernel, suffix, key)

    path_of, code_store.path_of = code_store.path_of, record
    compiler.compiled = lambda *arguments: ".version 8.0\n"
    code_store.read = code_store.write = lambda *arguments: None  # nor is this to be found again
    run(name, device=CompileOnlyDevice((9, 0), assembles=False), precision="float16")
    code_store.path_of = path_of


def run(name, **options):
    trainer = numbanet.create_from_config(2, 3, config_of(name), **options).trainer
    inputs, outputs = np.zeros((256, 2), np.float32), np.zeros((256, 3), np.float32)
    trainer.training_step(inputs, outputs)
    trainer.inference(inputs)


if __name__ == "__main__":
    for name in ENCODINGS:
        cpu_keys(name)
        cuda_keys(name)
    json.dump(keys, sys.stdout)
