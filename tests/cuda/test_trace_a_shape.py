"""samples/trace_a_shape.py: its kernel sees what a tracer in NumPy sees, ray by ray."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import numbanet

SAMPLE = Path(__file__).parents[2] / "samples" / "trace_a_shape.py"
HEIGHT, WIDTH = 17, 27  # neither fills its blocks
SMALL = {
    "encoding": {
        "otype": "HashGrid",
        "n_levels": 4,
        "log2_hashmap_size": 10,
        "base_resolution": 4,
        "per_level_scale": 1.6,
    },
    "network": {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2},
}


@pytest.fixture(scope="module")
def sample():
    pytest.importorskip("PIL", reason="the sample writes pictures")
    spec = importlib.util.spec_from_file_location("trace_a_shape", SAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def networks(sample, cuda_device):
    """The same model on the CPU, which has learned the shape, and on CUDA."""
    config = {**sample.CONFIG, **SMALL}
    cpu = sample.learn("cpu", config, n_steps=300, batch_size=4096).network
    gpu = numbanet.create_from_config(3, 1, config, device=cuda_device).network
    gpu.params = cpu.params
    return cpu, gpu


def rays(sample, view):
    """Directions [n, 3] of all pixels, and how far along them the cube begins and ends."""
    eye, middle, right, up = view.astype(np.float64)
    u = 2 * (np.arange(WIDTH) + 0.5) / WIDTH - 1
    v = 1 - 2 * (np.arange(HEIGHT) + 0.5) / HEIGHT
    directions = (middle + u[None, :, None] * right + v[:, None, None] * up).reshape(-1, 3)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    planes = (np.array([0, 1])[:, None, None] - eye) / directions
    return directions, np.maximum(planes.min(0).max(1), 0), planes.max(0).min(1)


def traced(sample, inference, view):
    """Whether each ray meets the shape, where, and how close it passes before it does or leaves."""
    directions, depth, last = rays(sample, view)
    is_hit, closest = np.zeros(len(depth), bool), np.full(len(depth), np.inf)
    is_on_its_way = depth < last
    for _ in range(sample.N_STEPS):
        y = inference((view[0] + depth[:, None] * directions).astype(np.float32))[:, 0]
        closest = np.where(is_on_its_way, np.minimum(closest, y), closest)
        is_hit |= is_on_its_way & (y < sample.NEAR)
        depth += np.where(is_on_its_way & ~is_hit, sample.CAUTION * y, 0)
        is_on_its_way &= ~is_hit & (depth < last)
    return is_hit, depth, closest


@pytest.mark.parametrize("angle", [0.7, 4.0])
def test_the_kernel_sees_what_numpy_sees(sample, networks, angle):
    cpu, gpu = networks
    view = sample.camera(angle)
    image = sample.picture(gpu, sample.tracer(gpu), view, HEIGHT, WIDTH).numpy()
    brightness, depth = image.reshape(-1, 2).T
    is_hit, expected, closest = traced(sample, cpu.inference, view)
    is_clear = is_hit | (closest > 3 * sample.NEAR)  # halves may meet what is passed so close
    assert 40 < is_hit.sum() < 0.6 * is_hit.size
    assert is_clear.mean() > 0.9
    agrees = (depth > 0) == is_hit
    assert agrees[is_clear].mean() > 0.98
    both = is_hit & (depth > 0)
    assert np.median(np.abs(depth - expected)[both]) < 1e-3
    assert np.quantile(np.abs(depth - expected)[both], 0.95) < 1e-2
    assert not brightness[~is_hit & is_clear & agrees].any()
    assert 0.3 < brightness[both].mean() < 1 + 1e-6  # the light is where the eye is


def test_what_it_sees_is_the_shape(sample, networks):
    """Also beside what was learned: the points that it finds lie on the surface."""
    view = sample.camera(0.7)
    image = sample.picture(networks[1], sample.tracer(networks[1]), view, HEIGHT, WIDTH).numpy()
    depth = image[:, :, 1].reshape(-1)
    points = view[0] + depth[:, None] * rays(sample, view)[0]
    distances = np.abs(sample.distance(points[depth > 0]))
    assert np.quantile(distances, 0.9) < 0.02


def test_the_script_runs(gpu, tmp_path):
    from PIL import Image

    command = [sys.executable, SAMPLE, "50", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "shape.gif") as picture:
        assert (picture.size, picture.n_frames) == ((512, 512), 2)
        assert np.asarray(picture).max() > 100
