"""The whole stack in seconds: config, training, snapshot, inference. Runs before each commit."""

import numpy as np

import numbanet

CONFIG = """
{
    // a line of colours
    "loss": {"otype": "L2"},
    "optimizer": {"otype": "Adam", "learning_rate": 1e-2},
    "encoding": {"otype": "HashGrid", "n_levels": 4, "log2_hashmap_size": 8},
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 1},
}
"""


def test_whole_stack(tmp_path):
    (tmp_path / "config.json").write_text(CONFIG)
    config = numbanet.load_config(tmp_path / "config.json")
    model = numbanet.create_from_config(1, 3, config, device="cpu")
    rng = np.random.default_rng(0)

    def batch():
        x = rng.random((500, 1))
        return x, 0.5 + 0.5 * np.sin(6 * x + np.arange(3))

    losses = [float(model.trainer.training_step(*batch())) for _ in range(150)]
    assert losses[-1] < 1e-3 < 0.1 < losses[0]

    model.trainer.save(tmp_path / "model.safetensors")
    loaded = numbanet.load(tmp_path / "model.safetensors", device="cpu")
    x, targets = batch()
    y = loaded.network.inference(x)
    assert np.mean((y - targets) ** 2) < 1e-3
    np.testing.assert_array_equal(y, model.network.inference(x))
