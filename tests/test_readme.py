"""The Python examples of the README run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def examples():
    """The ```python blocks of the README, from their first line to the closing fence."""
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    return re.findall(r"^```python *\n(.*?)^``` *$", text, re.DOTALL | re.MULTILINE)


def test_readme_has_an_example():
    assert examples(), "README.md needs a ```python block: the example that this file runs"


@pytest.mark.parametrize("k", range(len(examples())))
def test_example_runs(k, tmp_path):
    """In an empty directory with the sample configs beside it, as a user would have them."""
    for folder in ("samples", "data"):
        if (ROOT / folder).exists():
            (tmp_path / folder).symlink_to(ROOT / folder)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", examples()[k]],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
