"""Views of a scene: cameras and their pictures, on a target, and random rays of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.cuda.launch.types import UInt
from numbanet.cuda.memory import arrays
from numbanet.device import HALF, device
from numbanet.random import Pcg32
from numbanet.target import AbstractTarget
from numbanet.volumes.cameras import N_NUMBERS, Camera, camera_ray
from numbanet.volumes.launch import Floats, Job, Rows, UInts, integers

BYTE = np.float32(1.0 / 255.0)
N_RANDOM = 4  # numbers that a ray takes: camera, column, row, offset of the first step


@device
def as_index(u, n):  # of a number in [0, 1)
    return min(np.uint32(u * np.float32(n)), n - 1)


@device
def colour_of(word, rgba):
    for c in range(4):
        rgba[c] = np.float32((word >> np.uint32(8 * c)) & 255) * BYTE


@Job
def random_ray(
    i, n_cameras: UInt, numbers: Floats, cameras: Rows(N_NUMBERS), sizes: UInts, pixels: UInts,
    origins: Rows(3), directions: Rows(3), colours: Rows(4), chosen: UInts, offsets: Floats,
):  # fmt: skip
    k = as_index(numbers[4 * i], n_cameras)
    width, height = sizes[3 * k + 1], sizes[3 * k + 2]
    x, y = as_index(numbers[4 * i + 1], width), as_index(numbers[4 * i + 2], height)
    camera_ray(cameras[k], np.float32(x) + HALF, np.float32(y) + HALF, origins[i], directions[i])
    colour_of(pixels[sizes[3 * k] + y * width + x], colours[i])
    chosen[i], offsets[i] = k, numbers[4 * i + 3]


@dataclass(frozen=True)
class RandomRays:
    """Rays of random pixels; arrays are the target's.

    Args:
        origins, directions: float32 [n, 3].
        colours: what the pixels show, red, green, blue and opacity, float32 [n, 4].
        cameras: numbers of their cameras, uint32 [n].
        offsets: in [0, 1), for the first step; float32 [n].
    """

    origins: Any
    directions: Any
    colours: Any
    cameras: Any
    offsets: Any

    @classmethod
    def room(cls, target: AbstractTarget, n: int) -> "RandomRays":
        """Allocate arrays for rays, uninitialised."""
        return cls(
            target.empty(n, 3), target.empty(n, 3), target.empty(n, 4), integers(target, n),
            target.empty(n),
        )  # fmt: skip

    def first(self, n: int) -> "RandomRays":
        """First n rays, in the same memory."""
        return RandomRays(*(each[:n] for each in vars(self).values()))


class Views:
    """Cameras with their pictures.

    Args:
        cameras: one for each picture.
        pixels: uint32 [height * width] of each, row by row: red, green, blue and opacity are the
            bytes from the lowest one up, and colours are not multiplied by the opacity.
        target: where they are to be.
    """

    def __init__(self, cameras: Sequence[Camera], pixels: Sequence[Any], target: AbstractTarget):
        self.cameras, self.target = list(cameras), target
        self.pictures = list(pixels)
        ends = np.cumsum([0, *(camera.width * camera.height for camera in cameras)])
        rows = zip(ends[:-1], cameras, strict=True)
        sizes = [(first, camera.width, camera.height) for first, camera in rows]
        self._sizes = uploaded(np.array(sizes, np.uint32).reshape(-1), target)
        self._numbers = target.from_host(np.stack([each.numbers() for each in cameras]))
        self._pixels = uploaded(np.concatenate([as_host(each) for each in pixels]), target)

    def __len__(self) -> int:
        return len(self.cameras)

    def colours(self, k: int) -> np.ndarray:
        """Picture k on the host, float32 [height, width, 4], colours not multiplied by opacity."""
        camera = self.cameras[k]
        words = as_host(self.pictures[k]).astype("<u4", copy=False)
        return words.view(np.uint8).reshape(camera.height, camera.width, 4) / np.float32(255)

    def random_rays(self, rng: Pcg32, room: RandomRays) -> RandomRays:
        """Fill `room` with rays of random pixels of random views."""
        n = room.offsets.shape[0]
        numbers = rng.uniform(N_RANDOM * n, self.target)
        random_ray(
            self.target, n, len(self), numbers, self._numbers, self._sizes, self._pixels,
            room.origins, room.directions, room.colours, room.cameras, room.offsets,
        )  # fmt: skip
        return room


def as_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.numpy()


def uploaded(array: np.ndarray, target: AbstractTarget) -> Any:
    """Copy of an array of any dtype on a target."""
    return array if target.name == "cpu" else arrays.to_device(array, target.device)
