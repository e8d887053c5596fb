"""The programs of docs/export.md."""

import re
import subprocess
from pathlib import Path

import c_program
import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs/export.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_the_page_does_what_it_says(tmp_path, monkeypatch):
    if not c_program.COMPILERS:
        pytest.skip("needs gcc or clang")
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    (_, example), (_, program), (_, graph), (_, inference), (_, shader) = blocks
    names = {}
    exec(example, names)
    Path("main.c").write_text(program)
    compiler = c_program.COMPILERS[0]
    subprocess.run(
        [compiler, *c_program.WARNINGS, "-O2", "main.c", "-o", "main", "-lm"], check=True
    )
    printed = subprocess.run(["./main"], capture_output=True, text=True, check=True).stdout
    expected = np.asarray(names["model"](np.array([[0.25, 0.75]])))[0]
    np.testing.assert_allclose([float(each) for each in printed.split()], expected, atol=2e-6)
    pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")
    exec(graph + inference, names)
    assert names["y"].shape == (1000, 3)
    pytest.importorskip("wgpu", reason="needs the package wgpu")
    from test_wgsl import device

    device()  # skips without a Vulkan driver
    exec(shader, names)
    np.testing.assert_allclose(names["z"], names["model"](names["x"]), atol=2e-6)
