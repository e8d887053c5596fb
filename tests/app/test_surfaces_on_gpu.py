"""What surfaces and volumes compute on an emulated GPU, against the CPU."""

import numpy as np
import pytest

from emulator.device import shared_device
from numbanet.app.surfaces.distances import N_UNIFORM, Distances
from numbanet.app.surfaces.formulas import Formula
from numbanet.app.surfaces.mesh_file import mesh_of
from numbanet.app.surfaces.training import eikonal_gradients
from numbanet.app.volume_training import voxel_job
from numbanet.targets import target_for

N = 40


@pytest.fixture
def gpu():
    return target_for(shared_device(), "float32")


def points(seed=0):
    return np.random.default_rng(seed).random((N, 3), np.float32)


def soup(tmp_path):
    rng = np.random.default_rng(1)
    triangles = rng.random((30, 1, 3)) + rng.normal(0, 0.1, (30, 3, 3))
    triangles[20:, 2] = triangles[20:, :2].mean(axis=1) + 1e-7  # thin ones
    return mesh_of(tmp_path / "soup.ply", triangles.astype("f4"))


@pytest.mark.parametrize("make", [lambda path: Formula("links"), soup], ids=["formula", "mesh"])
def test_distances_and_samples(gpu, tmp_path, make):
    surface, x = make(tmp_path), points()
    uniform = np.random.default_rng(2).random((N, N_UNIFORM), np.float32)
    expected, found = Distances(surface, target_for("cpu")), Distances(surface, gpu)
    distances = gpu.to_host(found(gpu.from_host(x)))
    np.testing.assert_allclose(distances, expected(x), atol=1e-6)
    samples = gpu.to_host(found.samples(gpu.from_host(uniform)))
    np.testing.assert_allclose(samples, expected.samples(uniform), atol=1e-4)


def test_voxels(gpu):
    volume, x = np.random.default_rng(3).random((4, 5, 6), np.float32), points()
    positions, values = gpu.empty(N, 3), gpu.empty(N, 1)
    flat = gpu.from_host(volume.reshape(-1))
    voxel_job(3)(gpu, N, gpu.from_host(x), positions, values, flat, 1, 4, 5, 6)
    places = (x * np.array(volume.shape)).astype(int)
    np.testing.assert_array_equal(gpu.to_host(values)[:, 0], volume[tuple(places.T)])
    expected = (places + 0.5) / volume.shape
    np.testing.assert_allclose(gpu.to_host(positions), expected, rtol=1e-6)


def test_the_eikonal_term(gpu):
    slopes, gradients = points() * 3, gpu.empty(N, 3)
    eikonal_gradients(gpu, N, gpu.from_host(slopes), 0.5, gradients)
    lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
    expected = 0.5 * (lengths - 1) / lengths * slopes
    np.testing.assert_allclose(gpu.to_host(gradients), expected, atol=1e-6)
