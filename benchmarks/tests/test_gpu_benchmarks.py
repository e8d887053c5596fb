"""GPU benchmarks without a GPU: their reports, and failures of methods."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import report, run
from benchmarks.harness.process import MethodError

ROOT = Path(__file__).parents[2]
SCRIPTS = "gpu_training", "gpu_inference", "gpu_mlp"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_machine_without_a_gpu_gets_one_message(name, tmp_path):
    script = f"benchmarks.scripts.{name}"
    done = subprocess.run(
        [sys.executable, "-m", script, "--quick", "--output", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Nothing is measured, because no GPU can be used: ")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class Stub:
    """Stand-in for the process of a method, and for that of the ceilings."""

    def __init__(self, seconds, wrong=0, fails_at=None):
        self.seconds, self.wrong, self.fails_at = seconds, wrong, fails_at

    def describe(self):
        return {"versions": {}, "precision": "float16", "skips_zero_gradients": True}

    def verify(self, kind, batches):
        return {"outputs": self.expected.outputs + self.wrong}

    def prepare(self, kind, sizes):
        return dict.fromkeys(sizes, 1.0)

    def measure(self, *what):
        if not what:
            return {"copied bytes": 4e12, "half operations": 8e14}
        _, n, _ = what
        if n == self.fails_at:
            raise MethodError("out of memory")
        return self.seconds * n

    def measure_host(self, kind, n):
        return 1e-5

    def close(self):
        pass


def test_a_method_that_fails_costs_only_its_rows(tmp_path, capsys, monkeypatch):
    """The ratio, the tables, the plot and the JSON of a run with made-up times."""
    stubs = {
        "numbanet-fused": Stub(1e-9),
        "jax": Stub(2e-9),
        "torch-eager": Stub(4e-9, fails_at=2**12),
        "torch-compiled": Stub(1e-10, wrong=1),
    }

    class Expected(run.Expected):
        def __init__(self, *args):
            super().__init__(*args)
            Stub.expected = self

    def process(make, *args, timeout):
        return stubs[args[0]] if args else Stub(1)

    monkeypatch.setattr(run, "Expected", Expected)
    monkeypatch.setattr(run, "Process", process)
    benchmark = run.Run(
        {"name": "Stub"}, {name: name for name in stubs}, ("numbanet-fused",), "ceilings",
        n_rounds=3, round_seconds=0.02, n_starting=4, times_host=True,
    )  # fmt: skip
    benchmark.measure("config_hash", {"inference": [2**10, 2**12]})
    report.print_tables(benchmark.report)
    report.print_shares(benchmark.report)
    report.draw(benchmark.report, tmp_path / "plot.png")
    benchmark.write(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert [len(result["methods"]) for result in found["results"]] == [3, 2]
    assert [result["best_rival"] for result in found["results"]] == ["jax", "jax"]
    assert found["results"][0]["ratio_to_best_rival"] == pytest.approx(2)
    row = found["results"][0]["methods"]["numbanet-fused"]
    assert row["microseconds"] == pytest.approx(1.024)
    assert row["operations_per_second"] == pytest.approx(2 * (32 + 64 + 3) * 64 * 1e9)
    left = [(left["method"], left["batch_size"]) for left in found["left_out"]]
    assert left == [("torch-compiled", None), ("torch-eager", 2**12)]
    assert (tmp_path / "plot.png").stat().st_size > 0
    printed = capsys.readouterr().out
    assert "out of memory" in printed
    assert "outputs differ from the float64 reference" in printed
