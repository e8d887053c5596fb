"""Pictures of a signed distance, by sphere tracing (Hart 1996).

Rays walk as far as the distance says that nothing is near, all together: the distance of all points
is one call. It may be a network's, which is a little off, so steps are shorter than it says.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

N_STEPS = 80
NEAR = np.float32(1e-3)
CAUTION = np.float32(0.9)
TAP = np.float32(2e-3)  # between the points of which a normal is made
# Corners of a tetrahedron, so that four distances make a normal.
TAPS = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
CLAY = np.array([0.86, 0.62, 0.45], np.float32)
BACKGROUND = np.float32(0.96)

Distance = Callable[[np.ndarray], np.ndarray]  # from points [n, 3] to distances [n]


def hits(distance: Distance, origins: np.ndarray, directions: np.ndarray) -> tuple:
    """End points [n, 3] of rays, and whether they met the surface, [n]; in the unit cube."""
    safe = np.where(np.abs(directions) < 1e-6, np.float32(1e-6), directions)
    low, high = -origins / safe, (1 - origins) / safe
    depths = np.maximum(np.minimum(low, high).max(axis=1), 0)
    ends = np.maximum(low, high).min(axis=1)
    is_hit, walking = np.zeros(len(origins), bool), np.flatnonzero(depths < ends)
    for _ in range(N_STEPS):
        if not len(walking):
            break
        points = origins[walking] + depths[walking, None] * directions[walking]
        found = np.nan_to_num(distance(points), nan=1.0)
        arrived = found < NEAR
        is_hit[walking[arrived]] = True
        depths[walking] += np.where(arrived, 0, CAUTION * np.maximum(found, NEAR))
        walking = walking[~arrived & (depths[walking] < ends[walking])]
    return origins + depths[:, None] * directions, is_hit


def normals(distance: Distance, points: np.ndarray) -> np.ndarray:
    """Unit normals, along which the distance grows, [n, 3]."""
    taps = (points[:, None] + TAP * TAPS).reshape(-1, 3)
    slopes = distance(taps).reshape(-1, 4) @ TAPS
    return slopes / np.maximum(np.linalg.norm(slopes, axis=1, keepdims=True), 1e-12)


def pictures(distance: Distance, camera: Any) -> tuple[np.ndarray, np.ndarray]:
    """Views of a camera, shaded and as normals, float32 [height, width, 3] in [0, 1] each."""
    origins, directions = (np.asarray(each) for each in camera.rays("cpu"))
    points, is_hit = hits(distance, origins, directions)
    shape = camera.height, camera.width, 3
    shaded, coloured = (np.full((len(points), 3), BACKGROUND) for _ in range(2))
    if is_hit.any():
        found = normals(distance, points[is_hit])
        pose = np.asarray(camera.pose, np.float32)
        sun = pose[:, 2] + 0.5 * pose[:, 1] - 0.4 * pose[:, 0]  # over the viewer's left shoulder
        light = np.maximum(found @ (sun / np.linalg.norm(sun)), 0)
        shaded[is_hit] = CLAY * (0.25 + 0.8 * light[:, None])
        coloured[is_hit] = 0.5 + 0.5 * found
    return tuple(np.clip(each, 0, 1).reshape(shape) for each in (shaded, coloured))
