"""The first step of a grid warns, once, where most inputs lie outside of what it covers."""

import warnings

import numpy as np
import pytest
from models import HASH, make_config, mlp

import numbanet
from numbanet.target import SAMPLE

MLP = mlp("FullyFusedMLP", 16, 2)
IDENTITY = {"otype": "Identity", "n_dims_to_encode": 1}
COMPOSITE = {"otype": "Composite", "nested": [IDENTITY, {**HASH, "n_dims_to_encode": 2}]}
TARGETS = np.zeros((256, 3))


def trainer(encoding, n_dims=2, device="cpu"):
    return model(encoding, n_dims, device).trainer


def model(encoding, n_dims=2, device="cpu"):
    config = make_config(encoding, MLP)
    return numbanet.create_from_config(n_dims, 3, config, device=device)


def inputs(low, high, n_dims=2, n=256):
    return np.random.default_rng(0).uniform(low, high, (n, n_dims))


@pytest.mark.parametrize(("low", "high", "share"), [(-1, 1, r"7\d%"), (0, 10, r"9\d%")])
def test_the_first_step_warns_once(low, high, share):
    made, x = trainer(HASH), inputs(low, high)
    with pytest.warns(UserWarning, match=rf"{share} of the inputs lie outside \[0, 1\]") as warned:
        made.training_step(x, TARGETS)
    assert len(warned) == 1
    assert warned[0].filename == __file__
    made.training_step(x, TARGETS)  # warnings are errors


def test_a_minority_outside_is_no_news():
    x = inputs(0, 1)
    x[:60] += 2
    made = trainer(HASH)
    made.training_step(x, TARGETS)
    made.training_step(inputs(5, 6), TARGETS)  # only the first one is looked at


def test_only_what_a_grid_reads_counts():
    outside = inputs(5, 6, 3)
    inside = outside.copy()
    inside[:, 1:] = inputs(0, 1)
    trainer(COMPOSITE, 3).training_step(inside, TARGETS)
    with pytest.warns(UserWarning, match="100% of the inputs"):
        trainer(COMPOSITE, 3).training_step(outside, TARGETS)
    trainer({"otype": "OneBlob", "n_bins": 4}).training_step(inputs(5, 6), TARGETS)


def test_on_a_gpu_the_loss_warns(cuda_device):
    """Whichever loss is the first to be read; nothing is waited for before."""
    made, x = trainer(HASH, device=cuda_device), inputs(-1, 1)
    for _ in range(2):
        loss = made.training_step(x, TARGETS)
    with pytest.warns(UserWarning, match=r"7\d% of the inputs lie outside") as warned:
        float(loss)
    assert warned[0].filename == __file__
    float(loss)


@pytest.mark.parametrize("n", [1, SAMPLE, 5 * SAMPLE + 3])
def test_samples_are_spread_over_all_rows(cuda_device, n):
    rows = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    for device in ("cpu", cuda_device):
        target = trainer(HASH, device=device).network.target
        sample = target.to_host(target.sampled(target.from_host(rows)))
        assert min(n, 0.8 * SAMPLE) <= len(sample)
        assert len(sample) <= 1.1 * SAMPLE
        assert np.isin(sample[:, 0], rows[:, 0]).all()
        np.testing.assert_array_equal(sample[:, 1], sample[:, 0] + 1)
        assert sample[0, 0] <= 0.1 * 2 * n
        assert sample[-1, 0] >= 0.9 * 2 * n - 2


def test_a_loaded_training_is_not_at_its_first_step(tmp_path):
    made, x = model(HASH), inputs(0, 1)
    made.trainer.training_step(x, TARGETS)
    made.save(tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = numbanet.load(tmp_path / "model.safetensors", device="cpu").trainer
        again.training_step(inputs(5, 6), TARGETS)
