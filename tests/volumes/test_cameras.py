"""Rays of cameras, with and without distortion."""

import numpy as np
import pytest

from numbanet.volumes import Camera

POSE = np.eye(4)[:3]


def distorted(u, v, k1, k2, p1, p2):
    """OpenCV's model: where a lens moves a point to."""
    r = u * u + v * v
    radial = 1 + k1 * r + k2 * r * r
    x = u * radial + 2 * p1 * u * v + p2 * (r + 2 * u * u)
    return x, v * radial + p1 * (r + 2 * v * v) + 2 * p2 * u * v


@pytest.mark.parametrize("distortion", [(0, 0, 0, 0), (0.08, -0.02, 0.003, -0.002)])
def test_rays_go_through_the_pixels(target, distortion):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.concatenate([turn, rng.normal(size=(3, 1))], axis=1)
    camera = Camera(pose, 7, 5, (8.0, 9.0), (3.2, 2.6), distortion)
    origins, directions = map(np.asarray, camera.rays(target))
    assert origins.shape == directions.shape == (35, 3)
    np.testing.assert_allclose(origins, np.tile(pose[:, 3], (35, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    seen = directions @ turn  # in the camera's axes
    u, v = seen[:, 0] / -seen[:, 2], -seen[:, 1] / -seen[:, 2]
    x, y = distorted(u, v, *distortion)
    columns, rows = np.meshgrid(np.arange(7) + 0.5, np.arange(5) + 0.5)
    np.testing.assert_allclose(8 * x + 3.2, columns.reshape(-1), atol=1e-4)
    np.testing.assert_allclose(9 * y + 2.6, rows.reshape(-1), atol=1e-4)
    part = np.asarray(camera.rays(target, 2, 4)[1])
    np.testing.assert_array_equal(part, directions[14:28])


def test_a_camera_looks_where_it_is_told():
    camera = Camera.looking((1, 2, 3), (4, 2, 5), 64, 32)
    middle = np.asarray(camera.rays()[1]).reshape(32, 64, 3)[15:17, 31:33].mean(axis=(0, 1))
    np.testing.assert_allclose(
        middle / np.linalg.norm(middle), np.array([-3, 0, -2]) / 13**0.5, atol=1e-3
    )
    assert np.linalg.det(camera.pose[:, :3]) == pytest.approx(1)
    above = Camera.looking((0, 0, 0), (0, 0, 2), 8, 8)
    np.testing.assert_allclose(np.linalg.det(above.pose[:, :3]), 1)


def test_other_sizes_keep_the_view():
    camera = Camera(POSE, 40, 30, (50.0, 50.0), (21.0, 15.0))
    twice = camera.resized(80, 60)
    assert twice.focal == (100, 100)
    assert twice.centre == (42, 30)
    wide = camera.resized(80, 30)
    assert wide.focal == (100, 100)  # the width decides, rows are cut off
    assert wide.centre == (42, 15)


@pytest.mark.parametrize(
    "options",
    [
        {"pose": np.eye(3)},
        {"pose": np.full((3, 4), np.nan)},
        {"width": 0},
        {"height": 70000},
        {"focal": (0, 1)},
        {"focal": (np.inf, 1)},
        {"centre": (np.nan, 0)},
        {"distortion": (0, 0, 0)},
        {"distortion": 0},
        {"centre": (1, 2, 3), "distortion": (0, 0, 0)},
        {"centre": 3},
        {"focal": "no"},
        {"width": 4.5},
        {"height": "3"},
        {"pose": [[1, 2], [3]]},
        {"pose": 1e300 * np.eye(4)},
    ],
)
def test_cameras_that_cannot_be(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Camera(**{"pose": POSE, "width": 4, "height": 3, "focal": (5, 5)} | options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"place": (0, 0, 0)}, "place"),
        ({"place": (0, np.nan, 0)}, "place"),
        ({"at": (0, 0)}, "at"),
        ({"angle": 0}, "angle"),
        ({"angle": 4.0}, "angle"),
        ({"angle": None}, "angle"),
        ({"up": (0, 0, 0)}, "up"),
    ],
)
def test_views_that_cannot_be(options, words):
    with pytest.raises(ValueError, match=words):
        Camera.looking(**{"at": (0, 0, 0), "place": (0, 1, 1), "width": 4, "height": 3} | options)


@pytest.mark.parametrize("rows", [(-1, 2), (2, 1), (0, 4), (0, 2.5)])
def test_rows_that_are_not_there(rows):
    with pytest.raises(ValueError, match=r"first|last"):
        Camera(POSE, 4, 3, (5, 5)).rays("cpu", *rows)
