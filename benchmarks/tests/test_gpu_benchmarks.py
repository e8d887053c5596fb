"""The GPU benchmarks: without a GPU they say so, and their float64 reference is the model's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import numbanet

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = "gpu_training", "gpu_inference", "gpu_mlp"


@pytest.fixture
def jobs(monkeypatch):
    """The jobs by name, imported as the scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from gpu_jobs import JOBS

    return JOBS


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_machine_without_a_gpu_gets_one_message(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing is measured, because no GPU can be used: ")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config_hash", "config_oneblob"])
def test_jobs_are_the_sample_configs(jobs, name):
    assert jobs[name].config == numbanet.load_config(ROOT / f"samples/configs/{name}.json")


@pytest.mark.parametrize("name", ["config_hash", "mlp_64"])
def test_the_reference_computes_what_the_model_does(jobs, name):
    job = jobs[name]
    params = job.initial_params(table_scale=0.5)
    model = numbanet.create_from_config(job.n_inputs, job.n_outputs, job.config, device="cpu")
    model.network.params = job.padded(params, model.network.n_params)
    reference = job.reference(params, skips_zero_gradients=True)
    rng = np.random.default_rng(0)
    x = rng.random((300, job.n_inputs), np.float32)
    y = rng.random((300, job.n_outputs), np.float32)
    expected = reference.forward(x)[-1]
    np.testing.assert_allclose(model.trainer.inference(x), expected, rtol=0, atol=1e-4)
    for _ in range(3):
        loss = float(model.trainer.training_step(x, y))
        assert loss == pytest.approx(reference.step(x, y), rel=1e-3)


def test_one_blob_is_a_partition_that_wraps_around(jobs):
    from gpu_jobs import N_BINS, one_blob

    features = one_blob(np.array([[0.5, 0.0], [0.999, 0.3]], np.float32))
    assert features.shape == (2, 2 * N_BINS)
    np.testing.assert_allclose(features.reshape(2, 2, N_BINS).sum(axis=2), 1, atol=1e-6)
    assert features[0, N_BINS] == pytest.approx(features[0, -1])  # at 0, both neighbours


class Stub:
    """What a method's process answers."""

    def __init__(self, seconds, fails_at=None):
        self.seconds, self.fails_at = seconds, fails_at

    def measure(self, kind, n, n_repeats):
        if n == self.fails_at:
            from method_process import MethodError

            raise MethodError("out of memory")
        return self.seconds * n

    def measure_host(self, kind, n):
        return 1e-5

    def close(self):
        pass


def test_a_method_that_fails_costs_only_its_rows(jobs, tmp_path, capsys, monkeypatch):
    """Of a run with made-up times: the ratio, the tables, the plot and the JSON."""
    import gpu_report
    import gpu_run

    stubs = {"numbanet-fused": Stub(1e-9), "jax": Stub(2e-9), "torch-eager": Stub(4e-9, 2**12)}
    report = {
        "kind": "inference",
        "date": "2026-01-01",
        "card": {"name": "Stub"},
        "left_out": [],
        "results": [],
        "ceilings": {"copied bytes": 4e12, "half operations": 8e14},
    }
    sizes = [2**10, 2**12]
    methods = {name: (stub, set(sizes)) for name, stub in stubs.items()}
    monkeypatch.setattr(gpu_run, "start_methods", lambda *args: methods)
    options = type("Options", (), {"quick": True, "batches": sizes})
    gpu_run.measure_job("config_hash", "inference", options, report)
    gpu_report.print_tables(report)
    gpu_report.print_ceilings(report)
    gpu_report.draw(report, tmp_path / "plot.png")
    gpu_run.write(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert [len(result["methods"]) for result in found["results"]] == [3, 2]
    assert [result["best_rival"] for result in found["results"]] == ["jax", "jax"]
    assert found["results"][0]["ratio_to_best_rival"] == pytest.approx(2)
    row = found["results"][0]["methods"]["numbanet-fused"]
    assert row["microseconds"] == pytest.approx(1.024)
    assert row["operations_per_second"] == pytest.approx(2 * (32 + 64 + 3) * 64 * 1e9)
    assert [left["batch_size"] for left in found["left_out"]] == [2**12]
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert "out of memory" in capsys.readouterr().out
