"""A program that uses numbanet, for the type checker of `make lint`: what is asked for has types.

It is checked, and also run by a test, so that the types are those of what comes.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import numbanet

CONFIG = {  # that of tests/test_tiny.py, whose kernels are there
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 4,
        "log2_hashmap_size": 7,
        "base_resolution": 4,
        "per_level_scale": 1.5,
    },
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2},
}

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value, kind):
        return value


def main(folder: Path) -> None:
    """Make a model, train it, evaluate it and keep it."""
    config = numbanet.load_config(CONFIG)
    assert_type(config, dict[str, Any])
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    assert_type(model, numbanet.TrainableModel)
    x = np.random.default_rng(0).random((20, 2))
    loss = model.trainer.training_step(x, [[0.1, 0.2, 0.3]] * 20)
    assert_type(loss, numbanet.Loss)
    if loss < 0.1:
        loss = loss + 1
    y = model(x)
    assert_type(y, numbanet.Array)
    assert_type(y.shape, tuple[int, ...])
    assert_type(np.asarray(y), np.ndarray)
    assert_type(model.input_gradient(0, x), numbanet.Array)
    assert_type(model.network.params, numbanet.Array)
    model.network.params = np.asarray(model.network.params)
    assert_type(model.network.named_parameters(), dict[str, numbanet.Array])
    outputs, context = model.network.forward(x)
    assert_type(outputs, numbanet.Array)
    assert_type(model.network.backward(context, np.ones((20, 3))), numbanet.Array)
    found = model.network.derivatives(x, order=1)
    assert_type(found, numbanet.Derivatives)
    assert_type(found.jacobian, numbanet.Array)
    found.backward(found.values)
    assert_type(model.trainer.optimizer_step(), numbanet.Loss)
    assert_type(numbanet.summary(model), numbanet.Summary)
    model.trainer.learning_rate = 1e-3
    model.save(folder / "model.safetensors", {"name": "typed"})
    assert_type(numbanet.load(folder / "model.safetensors", device="cpu"), numbanet.TrainableModel)
    assert_type(numbanet.to_matrices(model.network), list[np.ndarray])
    many = numbanet.create_many(2, 1, {}, 2, device="cpu")
    assert_type(many[np.argmin([0.5, 0.25])], numbanet.TrainableModel)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
