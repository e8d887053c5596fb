"""Scenes for training: the eight synthetic ones, and those of a user's cameras."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.app.fields.drawing import draw
from numbanet.app.fields.scenes import SCENES
from numbanet.app.fields.views import as_host
from numbanet.target import AbstractTarget
from numbanet.volumes import Camera

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
DISTANCE, ANGLE = 2.8, 0.7  # of cameras from the middle, and of their field of view in radians
SIZE = 400  # pixels
N_TRAIN, N_TEST = 100, 20
SCALE, OFFSET = 0.5, (0.5, 0.5, 0.5)  # from the scenes' [-1, 1]^3 to the field's [0, 1]^3


@dataclass(frozen=True)
class Shots:
    """Cameras and their pictures, uint32 [height * width] each as Views takes them."""

    cameras: list[Camera]
    pixels: list[Any]

    def __len__(self) -> int:
        return len(self.cameras)


@dataclass(frozen=True)
class SceneData:
    """Scene with training and test views; cameras are in the field's [0, 1]^3.

    Args:
        name: for titles.
        train, test: to learn, and to measure.
        n_levels: of the occupancy grid.
        has_opacity: whether pictures leave out their background.
    """

    name: str
    train: Shots
    test: Shots
    n_levels: int = 1
    has_opacity: bool = True

    @property
    def digest(self) -> str:
        """Digest of the pictures and the cameras."""
        total = sha256(f"{len(self.train)} {len(self.test)} {self.n_levels}".encode())
        for shots in (self.train, self.test):
            for camera, pixels in zip(shots.cameras, shots.pixels, strict=True):
                total.update(camera.numbers().tobytes())
                total.update(f"{camera.width} {camera.height}".encode())
                total.update(as_host(pixels).astype("<u4", copy=False).data)
        return total.hexdigest()


def cameras_around(n: int, size: int, shift: float) -> list[Camera]:
    """Cameras spread over a sphere around a synthetic scene, in its own units."""
    k = np.arange(n)
    height = 1 - 2 * (k + 0.5) / n
    around, angle = np.sqrt(1 - height**2), GOLDEN_ANGLE * k + shift
    places = np.stack([around * np.cos(angle), around * np.sin(angle), height], axis=1)
    return [
        Camera.looking((0, 0, 0), DISTANCE * place, size, size, angle=ANGLE) for place in places
    ]


def moved(camera: Camera, scale: float, offset: Any) -> Camera:
    """Camera in other units: its position is scaled and shifted."""
    pose = camera.pose.copy()
    pose[:, 3] = pose[:, 3] * scale + offset
    return Camera(pose, camera.width, camera.height, camera.focal, camera.centre, camera.distortion)


def made_scene(
    name: str, target: AbstractTarget, size: int = SIZE, n_train: int = N_TRAIN,
    n_test: int = N_TEST,
) -> SceneData:  # fmt: skip
    """Draw one of the eight synthetic scenes on a target.

    Raises:
        UsageError: there is no such scene.
    """
    if name not in SCENES:
        raise UsageError(f"there is no scene '{name}'; there are {', '.join(SCENES)}")
    parts = []
    for n, shift in ((n_train, 0.0), (n_test, 0.6)):
        cameras = cameras_around(n, size, shift)
        pixels = [as_host(draw(SCENES[name], camera, target)) for camera in cameras]
        parts.append(Shots([moved(camera, SCALE, OFFSET) for camera in cameras], pixels))
    return SceneData(name, *parts)


def is_made(scene: str | Path) -> bool:
    """Whether a name is that of a synthetic scene."""
    return str(scene) in SCENES
