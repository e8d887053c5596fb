"""A few of the kills and full disks of which docs/reliability.md has many."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_saves_survive_kills_and_full_disks(tmp_path):
    script = "benchmarks.scripts.reliability_saves"
    done = subprocess.run(
        [sys.executable, "-m", script, "--kills", "3", "--disks", "2", "--folder", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "after 3 of 3 kills" in done.stdout
    full = "2 of 2 saves raised an OSError that names the file", "lets us mount none"
    assert any(each in done.stdout for each in full)  # as root, and else
    assert list(tmp_path.iterdir()) == []
