"""docs/device_functions.md: its code as it stands, on a smaller picture after fewer steps."""

import re
from pathlib import Path

import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

PAGE = Path(__file__).parents[2] / "docs" / "device_functions.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
TRAINING, KERNEL, JITTED = BLOCKS
SMALLER = {
    "range(500)": "range(2)",
    "rng.random((16384, 2))": "rng.random((100, 2))",
    "height, width = 512, 512": "height, width = 19, 33",
}


def run(device, monkeypatch, *blocks):
    """The names that blocks of the page define, where "cuda" is a device of the tests."""
    text = "\n".join(blocks)
    for old, new in SMALLER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    monkeypatch.setattr("numbanet.targets.find_device", {"cuda": device}.__getitem__)
    scope = {"__name__": "user_code"}
    exec(compile(text, "user_code.py", "exec"), scope)
    return scope


def assert_magnified(picture, network):
    x, y = (0.25 + 0.125 * np.arange(n) / n for n in (33, 19))
    centres = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    expected = network(centres).numpy()
    assert np.ptp(expected, axis=0).min() > 1e-4
    assert_close(picture.reshape(-1, 3), expected, 1e-3)


def test_the_example(cuda_device, monkeypatch):
    scope = run(cuda_device, monkeypatch, TRAINING, KERNEL)
    assert scope["functions"].fused
    assert_magnified(scope["picture"], scope["network"])


def test_the_example_under_numba(gpu, monkeypatch):
    scope = run(
        gpu, monkeypatch, TRAINING, KERNEL, "image = network.target.zeros(19, 33, 3)\n", JITTED
    )
    scope["cuda"].synchronize()
    assert_magnified(scope["image"].numpy(), scope["network"])
