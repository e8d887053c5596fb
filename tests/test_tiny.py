"""The whole stack in seconds: config, training, snapshot, inference. Runs before each commit."""

import numpy as np

import numbanet

CONFIG = """
{
    // the grid of tests/models.py, whose compiled code is reused where it is there already
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
"""


def test_whole_stack(tmp_path):
    (tmp_path / "config.json").write_text(CONFIG)
    config = numbanet.load_config(tmp_path / "config.json")
    model = numbanet.create_from_config(2, 3, config, device="cpu")
    rng = np.random.default_rng(0)

    def batch():
        x = rng.random((500, 2))
        return x, 0.5 + 0.5 * np.sin(4 * x[:, :1] - 3 * x[:, 1:] + np.arange(3))

    losses = [float(model.trainer.training_step(*batch())) for _ in range(200)]
    assert losses[-1] < 2e-3 < 0.1 < losses[0]

    model.save(tmp_path / "model.safetensors")
    loaded = numbanet.load(tmp_path / "model.safetensors", device="cpu")
    x, targets = batch()
    y = loaded.network(x)
    assert np.mean((y - targets) ** 2) < 2e-3
    np.testing.assert_array_equal(y, model.network(x))
