"""The jobs are the sample configs, and their float64 reference computes what the model does."""

from pathlib import Path

import numpy as np
import pytest

import numbanet
from benchmarks.harness.jobs import JOBS, N_BINS, one_blob
from benchmarks.harness.samples import NAMES

CONFIGS = Path(__file__).parents[2] / "samples" / "configs"


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_the_sample_configs(name):
    assert JOBS[name].config == numbanet.load_config(CONFIGS / f"{name}.json")


@pytest.mark.parametrize("name", ["config_hash", "mlp_64"])
def test_the_reference_computes_what_the_model_does(name):
    job = JOBS[name]
    params = job.initial_params(table_scale=0.5)
    model = numbanet.create_from_config(job.n_inputs, job.n_outputs, job.config, device="cpu")
    model.network.params = job.padded(params, model.network.n_params)
    np.testing.assert_array_equal(job.unpadded(model.network.params), params)
    reference = job.reference(params, skips_zero_gradients=True)
    rng = np.random.default_rng(0)
    x = rng.random((300, job.n_inputs), np.float32)
    y = rng.random((300, job.n_outputs), np.float32)
    expected = reference.forward(x)[-1]
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-4)
    for _ in range(3):
        loss = float(model.trainer.training_step(x, y))
        assert loss == pytest.approx(reference.step(x, y), rel=1e-3)


def test_one_blob_is_a_partition_that_wraps_around():
    features = one_blob(np.array([[0.5, 0.0], [0.999, 0.3]], np.float32))
    assert features.shape == (2, 2 * N_BINS)
    np.testing.assert_allclose(features.reshape(2, 2, N_BINS).sum(axis=2), 1, atol=1e-6)
    assert features[0, N_BINS] == pytest.approx(features[0, -1])  # at 0, both neighbours
