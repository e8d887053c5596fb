"""The jobs are the sample configs, and their float64 reference computes what the model does."""

from pathlib import Path

import numpy as np
import pytest

import numbanet
from benchmarks.harness.jobs import JOBS, N_BINS, one_blob
from benchmarks.harness.samples import NAMES
from benchmarks.methods.numbanet_cpu import Numbanet

CONFIGS = Path(__file__).parents[2] / "samples" / "configs"


@pytest.mark.parametrize("name", NAMES)
def test_jobs_are_the_sample_configs(name):
    assert JOBS[name].config == numbanet.load_config(CONFIGS / f"{name}.json")


@pytest.mark.parametrize("name", ["config_hash", "mlp_64"])
def test_the_reference_computes_what_the_method_does(name):
    job = JOBS[name]
    params = job.initial_params(table_scale=0.5)
    method = Numbanet(job, params)
    np.testing.assert_array_equal(method.params(), params)
    reference = job.reference(params, skips_zero_gradients=True)
    rng = np.random.default_rng(0)
    x = rng.random((300, job.n_inputs), np.float32)
    y = rng.random((300, job.n_outputs), np.float32)
    expected = reference.forward(x)[-1]
    np.testing.assert_allclose(method.inference(x), expected, rtol=0, atol=1e-4)
    loss, gradients = method.loss_and_gradients(x, y)
    expected_loss, expected_gradients = reference.loss_and_gradients(x, y)
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    error = np.linalg.norm(gradients - expected_gradients) / np.linalg.norm(expected_gradients)
    assert error < 1e-3
    for _ in range(3):
        loss = float(method.step(x, y))
        assert loss == pytest.approx(reference.step(x, y), rel=1e-3)


def test_one_blob_is_a_partition_that_wraps_around():
    features = one_blob(np.array([[0.5, 0.0], [0.999, 0.3]], np.float32))
    assert features.shape == (2, 2 * N_BINS)
    np.testing.assert_allclose(features.reshape(2, 2, N_BINS).sum(axis=2), 1, atol=1e-6)
    assert features[0, N_BINS] == pytest.approx(features[0, -1])  # at 0, both neighbours
