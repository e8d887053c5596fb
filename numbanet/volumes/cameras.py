"""Cameras: rays from positions in a picture."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from numbanet.array_types import ArrayLike
from numbanet.cuda.launch.types import UInt
from numbanet.device import HALF, ONE, TWO, device
from numbanet.shown import shown
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.volumes.launch import Floats, Job, Rows
from numbanet.volumes.room import LARGEST, NUMBERS, whole

N_NUMBERS = 20  # of a camera, for kernels: pose, focal lengths, centre, distortion
N_TURNS = 10  # of Newton's method, which removes the distortion


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with the distortion of OpenCV's model.

    Args:
        pose: from the camera to the world, [3, 4] or [4, 4]; the camera looks along its -z axis, y
            is up, as in OpenGL, Blender and transforms.json.
        width, height: of its pictures, in pixels.
        focal: focal lengths along x and y, in pixels.
        centre: where the axis meets the picture, in pixels from the top left corner; the middle by
            default.
        distortion: k1, k2, p1, p2.

    Raises:
        ValueError: an argument is not allowed.
    """

    pose: Any
    width: int
    height: int
    focal: tuple[float, float]
    centre: tuple[float, float] | None = None
    distortion: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self):
        width, height = (whole(n, getattr(self, n), 1, 65535) for n in ("width", "height"))
        centre = (width / 2, height / 2) if self.centre is None else self.centre
        found = {
            "pose": numbers_of("pose", self.pose, (3, 4), (4, 4))[:3].copy(),
            "width": width,
            "height": height,
            "focal": tuple(numbers_of("focal", self.focal, (2,)).tolist()),
            "centre": tuple(numbers_of("centre", centre, (2,)).tolist()),
            "distortion": tuple(numbers_of("distortion", self.distortion, (4,)).tolist()),
        }
        if not min(found["focal"]) > 0:
            raise ValueError(f"focal: expected positive numbers, got {shown(self.focal)}")
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @classmethod
    def looking(
        cls, at: ArrayLike, place: ArrayLike, width: int, height: int, *, angle: float = 0.7,
        up: ArrayLike = (0.0, 0.0, 1.0),
    ) -> "Camera":  # fmt: skip
        """Camera at a position that looks at a point.

        Args:
            angle: of the field of view along x, in radians.

        Raises:
            ValueError: an argument is not allowed.
        """
        points = {"at": at, "place": place, "up": up}
        at, place, up = (numbers_of(name, each, (3,)) for name, each in points.items())
        if not (isinstance(angle, NUMBERS) and 0 < angle < math.pi):
            raise ValueError(f"angle: {shown(angle)} is not allowed; use 0 to pi, both excluded")
        if not np.linalg.norm(place - at) > 0:
            raise ValueError(f"place: {place.tolist()} is where it is to look at; use another")
        if not np.linalg.norm(up) > 0:
            raise ValueError(f"up: {up.tolist()} has no direction; use another")
        back = (place - at) / np.linalg.norm(place - at)
        up = up / np.linalg.norm(up)
        right = np.cross(up, back)
        if np.linalg.norm(right) < 1e-6:  # it looks along `up`
            right = np.cross(np.roll(up, 1), back)
        right /= np.linalg.norm(right)
        pose = np.stack([right, np.cross(back, right), back, place], axis=1)
        focal = width / 2 / math.tan(angle / 2)
        return cls(pose, width, height, (focal, focal))

    def resized(self, width: int, height: int) -> "Camera":
        """Same view with other pixels; the difference in aspect ratio is cut off or added."""
        scale = max(width / self.width, height / self.height)
        focal = self.focal[0] * scale, self.focal[1] * scale
        x, y = self.centre or (0.0, 0.0)
        centre = (
            width / 2 + (x - self.width / 2) * scale,
            height / 2 + (y - self.height / 2) * scale,
        )
        return replace(self, width=width, height=height, focal=focal, centre=centre)

    def numbers(self) -> np.ndarray:
        """Numbers of the camera for kernels, float32 [N_NUMBERS]."""
        parts = self.pose.reshape(-1), self.focal, self.centre, self.distortion
        return np.concatenate(parts).astype(np.float32)

    def rays(self, device: Any = "cpu", first: int = 0, last: int | None = None) -> tuple:
        """Origins and directions of the pixels' centres, row by row, float32 [n, 3] each.

        Args:
            device: where the arrays are to be.
            first, last: rows, the last one excluded; all by default.

        Raises:
            ValueError: there are no such rows.
        """
        target = device if isinstance(device, AbstractTarget) else target_for(device, None)
        last = whole("last", self.height if last is None else last, 0, self.height)
        first = whole("first", first, 0, last)
        n = (last - first) * self.width
        origins, directions = target.empty(n, 3), target.empty(n, 3)
        camera = target.from_host(self.numbers())
        rays_of_rows(target, n, camera, first, self.width, origins, directions)
        return origins, directions


def numbers_of(name: str, value: Any, *shapes: tuple[int, ...]) -> np.ndarray:
    """Finite numbers of one of these shapes, within the range of float32; float64."""
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if found.shape not in shapes or not (np.abs(found) < LARGEST).all():
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name}: expected finite numbers {wanted}, got {shown(value)}")
    return found


@device
def undistorted(x, y, k1, k2, p1, p2):
    """Position that OpenCV's distortion moves to (x, y), by Newton's method."""
    u, v = x, y
    for _ in range(N_TURNS):
        r = u * u + v * v
        radial = ONE + r * (k1 + r * k2)
        slope = TWO * (k1 + TWO * k2 * r)  # of `radial` in u, over u
        error_x = u * radial + TWO * p1 * u * v + p2 * (r + TWO * u * u) - x
        error_y = v * radial + TWO * p2 * u * v + p1 * (r + TWO * v * v) - y
        xx = radial + slope * u * u + TWO * p1 * v + np.float32(6.0) * p2 * u
        yy = radial + slope * v * v + TWO * p2 * u + np.float32(6.0) * p1 * v
        xy = slope * u * v + TWO * p1 * u + TWO * p2 * v
        determinant = xx * yy - xy * xy
        if abs(determinant) > np.float32(1e-6):
            u -= (yy * error_x - xy * error_y) / determinant
            v -= (xx * error_y - xy * error_x) / determinant
    return u, v


@device
def camera_ray(camera, x, y, origin, direction):
    """Write the ray of a position in the picture, in pixels from the top left corner."""
    u, v = (x - camera[14]) / camera[12], (y - camera[15]) / camera[13]
    u, v = undistorted(u, v, camera[16], camera[17], camera[18], camera[19])
    size = ONE / math.sqrt(u * u + v * v + ONE)
    for d in range(3):
        along = camera[4 * d] * u - camera[4 * d + 1] * v - camera[4 * d + 2]
        direction[d], origin[d] = along * size, camera[4 * d + 3]


@Job
def rays_of_rows(
    i, camera: Floats, first: UInt, width: UInt, origins: Rows(3), directions: Rows(3)
):
    x = np.float32(i % width) + HALF
    camera_ray(camera, x, np.float32(first + i // width) + HALF, origins[i], directions[i])
