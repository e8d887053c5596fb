"""Placement of a scene in the field's cube.

instant-ngp's cube: a position p of the file is at scale p + offset, and the scene is in the cube of
side aabb_scale around (0.5, 0.5, 0.5). A file without scale, offset and aabb_scale gets them from
its cameras: what they look at is in the middle, and they are on average AUTO_DISTANCE away.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from numbanet.app.errors import UsageError
from numbanet.app.fields.numbers_in_files import number, numbers_of
from numbanet.shown import shown
from numbanet.volumes import Camera

NGP_SCALE, NGP_OFFSET = 0.33, (0.5, 0.5, 0.5)
MOST_AABB_SCALE = 128
AUTO_DISTANCE, AUTO_AABB_SCALE = 1.0, 8
LARGEST = 1e6  # of numbers in offsets
N_LOOKS = 8  # rays along each side of a picture that tell whether a camera sees the cube


@dataclass(frozen=True)
class Placement:
    """Transform from a file's positions to the field's [0, 1]^3."""

    scale: float
    offset: np.ndarray
    n_levels: int


def placement_of(content: Mapping[str, Any], poses: list[np.ndarray], path: Path) -> Placement:
    """Placement from the file's scale, offset and aabb_scale, or from its cameras."""
    content = {name: value for name, value in content.items() if value is not None}
    given = any(name in content for name in ("scale", "offset", "aabb_scale"))
    is_blender = "camera_angle_x" in content and "fl_x" not in content
    side = number(content, "aabb_scale", path, 1.0 if given or is_blender else AUTO_AABB_SCALE)
    if side not in [2.0**k for k in range(int(math.log2(MOST_AABB_SCALE)) + 1)]:
        raise UsageError(
            f"'{path}': aabb_scale: {shown(content['aabb_scale'])} is not allowed; use a power of "
            f"two up to {MOST_AABB_SCALE}"
        )
    if given or is_blender:
        scale = number(content, "scale", path, NGP_SCALE)
        offset = numbers_of(content.get("offset", NGP_OFFSET))
        if offset.shape != (3,) or not (np.abs(offset) <= LARGEST).all() or not scale > 0:
            raise UsageError(f"'{path}': scale, offset: expected a positive number, and three")
    else:
        scale, offset = by_cameras(poses)
    middle = np.full(3, 0.5)
    return Placement(scale / side, (offset - middle) / side + middle, int(math.log2(side)) + 1)


def by_cameras(poses: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Scale and offset that centre the point that cameras look at."""
    places, axes = np.array([p[:, 3] for p in poses]), np.array([p[:, 2] for p in poses])
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # the nearest point to all axes
    total = across.sum(axis=0) + 1e-3 * len(poses) * np.eye(3)
    pulled = (across @ places[:, :, None])[..., 0].sum(axis=0)
    centre = np.linalg.solve(total, pulled + 1e-3 * len(poses) * places.mean(axis=0))
    distance = max(float(np.linalg.norm(places - centre, axis=1).mean()), 1e-9)
    scale = AUTO_DISTANCE / distance
    return scale, 0.5 - scale * centre


def check_sight(cameras: list[Camera], path: Path) -> None:
    """Raise UsageError if none of the cameras sees the cube."""
    for camera in cameras:
        origins, directions = camera.resized(N_LOOKS, N_LOOKS).rays("cpu")
        safe = np.where(np.abs(directions) < 1e-9, np.float32(1e-9), directions)
        low, high = -origins / safe, (1 - origins) / safe
        near, far = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        if (np.maximum(near, 0) < far).any():
            return
    raise UsageError(
        f"'{path}': no camera sees the cube that is learned; leave out scale, offset and "
        "aabb_scale, or use others"
    )
