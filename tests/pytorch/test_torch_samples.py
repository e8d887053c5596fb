"""The samples that use PyTorch run as they are, and learn."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import HASH, make_config, mlp

pytest.importorskip("torch", reason="needs PyTorch: make test-torch")
Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

ROOT = Path(__file__).parents[2]


def run(folder, sample, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error", f"{ROOT}/samples/{sample}", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_after(text, output):
    return float(re.search(rf"{text} ([\d.]+)", output)[1])


def test_learn_an_image(tmp_path):
    y, x = np.mgrid[:48, :64] / 64
    picture = np.stack([x, y, 0.5 + 0.4 * np.sin(12 * x * y)], axis=2)
    Image.fromarray(np.uint8(255 * picture)).save(tmp_path / "picture.png")
    config = make_config(HASH, mlp("FullyFusedMLP", 16, 2))
    (tmp_path / "config.json").write_text(json.dumps(config))
    output = run(tmp_path, "learn_an_image_torch.py", "picture.png", "config.json", 150)
    assert number_after("PSNR", output) > 26
    with Image.open(tmp_path / "learned.png") as learned:
        assert learned.size == (64, 48)
    assert (tmp_path / "learned.pt").is_file()


def test_learn_a_distance(tmp_path):
    output = run(tmp_path, "learn_a_distance_torch.py", 60)
    assert number_after("near the surface:", output) < 0.006
    assert number_after("on the right side:", output) > 98
