"""The components of docs/extending.md on the CUDA target: the CPU's results, the CPU's messages."""

import numpy as np
import pytest
from laws import assert_close
from test_extending import (
    ALL,
    BROKEN,
    COMPONENTS,
    ENCODING,
    assert_explained,
    assert_files_are_enough,
    run,
    user_registry,  # noqa: F401 (applies here too)
)

import numbanet

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")


@pytest.fixture
def targets(cuda_device):
    """Options for the CPU and for CUDA."""
    return {"device": "cpu"}, {"device": cuda_device, "precision": "float32"}


def test_a_model_of_them_trains_as_on_the_cpu(targets):
    run(*COMPONENTS)
    cpu, gpu = (numbanet.create_from_config(2, 3, ALL, **options) for options in targets)
    rng = np.random.default_rng(0)
    x = rng.random((100, 2), np.float32)
    y = np.sin(5 * x[:, :1] + x[:, 1:] * np.arange(3)).astype(np.float32)
    losses = []
    for _ in range(10):
        losses.append(float(cpu.trainer.training_step(x, y)))
        assert float(gpu.trainer.training_step(x, y)) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[-1] < 0.8 * losses[0]
    assert_close(gpu(x).numpy(), cpu(x), 1e-4)
    assert_close(gpu.network.params.numpy(), cpu.network.params, 1e-3)


def test_a_component_takes_one_file_and_no_other_edit(tmp_path, monkeypatch, targets):
    assert_files_are_enough(tmp_path, monkeypatch, **targets[1])


def test_their_encoding_by_itself_is_that_of_the_cpu(targets):
    run(ENCODING)
    rng = np.random.default_rng(0)
    x = rng.random((33, 2), np.float32)
    dl_ddx = rng.normal(size=x.shape).astype(np.float32)
    found = []
    for options in targets:
        encoding = numbanet.create_encoding(2, {"otype": "Bumps"}, **options)
        y, context = encoding.forward(x)
        dl_dy = np.cos(np.arange(33 * 16)).reshape(33, 16)
        dl_dx = encoding.backward(context, dl_dy)
        arrays = y, dl_dx, *encoding.double_backward(context, dl_dy, dl_ddx)
        found.append([encoding.target.to_host(array) for array in arrays])
    for expected, actual in zip(*found, strict=True):
        assert_close(actual, expected, 1e-5)


@pytest.mark.parametrize("case", BROKEN)
def test_code_that_does_not_compile_is_explained(case, cuda_device):
    assert_explained(case, cuda_device, "CUDA")
