"""Prints a digest of the parameters after ten steps with each optimizer, and with some nestings."""

import hashlib
import json
import sys

import models
import numba
import numpy as np

import numbanet
from numbanet import registry

ADAM, SHAMPOO = {"otype": "Adam"}, {"otype": "Shampoo"}
COMPOSITE = {
    "otype": "Composite",
    "nested": [
        {"otype": "SGD", "n_params_to_optimize": 256},
        {"otype": "Average", "n_samples": 3, "nested": ADAM, "n_params_to_optimize": 256},
    ],
}
NESTINGS = [
    {"otype": "Batched", "batch_size_multiplier": 2, "nested": {"otype": "EMA", "nested": ADAM}},
    {"otype": "Lookahead", "n_steps": 3, "nested": {"otype": "Batched", "nested": SHAMPOO}},
]


def optimizers():
    for name in registry.registered("optimizer"):
        if name == "Composite":
            yield COMPOSITE
        elif name == "Batched":
            yield {"otype": name, "batch_size_multiplier": 2}
        else:
            yield {"otype": name}
    yield from NESTINGS


def digest_after_training(optimizer):
    network = models.mlp("FullyFusedMLP", 16, 1)
    config = models.make_config({"otype": "Identity"}, network, "L2", optimizer)
    trainer = numbanet.create_from_config(2, 1, config, device="cpu").trainer
    x = np.random.default_rng(0).random((64, 2), np.float32)
    for _ in range(10):
        trainer.training_step(x, np.sin(5 * x[:, :1]))
    return hashlib.sha256(np.ascontiguousarray(trainer.network.params)).hexdigest()


if __name__ == "__main__":
    numba.set_num_threads(int(sys.argv[1]))
    json.dump({str(each): digest_after_training(each) for each in optimizers()}, sys.stdout)
