"""Signed distances of a surface, and the points at which a network learns them."""

from functools import cache
from typing import Any, Protocol

import numpy as np

from numbanet.cuda.launch.types import Float, UInt
from numbanet.device import ONE, ZERO
from numbanet.target import AbstractTarget
from numbanet.volumes.launch import Floats, Job, Rows

N_UNIFORM = 9  # random numbers of a sample: a point of the surface, and two for each axis
NEAR, WIDE = 0.01, 0.1  # how far from the surface samples lie
EIGHTH = 8  # of a batch: four lie near the surface, three around it, one anywhere


class Surface(Protocol):
    """Source of distances: a mesh, or a formula."""

    name: str
    note: str  # assumptions about the data, for the user
    scale: float  # of the cube's side, in the surface's own units
    origin: tuple[float, float, float]  # of the cube

    @property
    def digest(self) -> str:
        """Digest of the surface."""
        ...

    @property
    def functions(self) -> tuple[Any, Any]:
        """Device functions: the distance at a point, and a point of the surface."""
        ...

    @property
    def tables(self) -> tuple[np.ndarray, ...]:
        """Arrays that the functions read; see bvh.Bvh."""
        ...


@cache
def distance_job(distance: Any) -> Job:
    @Job
    def measure_distance(
        i, points: Rows(3), distances: Rows(1), boxes: Rows(6), corners: Rows(9),
        normals: Rows(21), areas: Floats, n_leaves: UInt,
    ):  # fmt: skip
        tables, p = (boxes, corners, normals, areas, n_leaves), points[i]
        distances[i, 0] = distance(p[0], p[1], p[2], tables)

    return measure_distance


@cache
def sample_job(surface_point: Any) -> Job:
    @Job
    def sample_point(
        i, n: UInt, uniform: Rows(N_UNIFORM), points: Rows(3), near: Float, wide: Float,
        boxes: Rows(6), corners: Rows(9), normals: Rows(21), areas: Floats, n_leaves: UInt,
    ):  # fmt: skip
        u, point, group = uniform[i], points[i], i // (n // EIGHTH + 1)
        if group == 7:
            for d in range(3):
                point[d] = u[d]
            return
        surface_point(u, point, (boxes, corners, normals, areas, n_leaves))
        width = near if group < 4 else wide
        for d in range(3):
            moved = point[d] + width * (u[3 + d] + u[6 + d] - ONE)
            point[d] = min(max(moved, ZERO), ONE)

    return sample_point


class Distances:
    """Distances to a surface on a target."""

    def __init__(self, surface: Surface, target: AbstractTarget):
        self.target = target
        tables = surface.tables
        self.n_leaves = len(tables[0]) // 2
        self._tables = [target.from_host(each) for each in tables]
        distance, surface_point = functions_of(surface)
        self._measure, self._sample = distance_job(distance), sample_job(surface_point)

    def __call__(self, points: Any) -> Any:
        """Signed distances [n, 1] at points [n, 3] of the target."""
        n = points.shape[0]
        distances = self.target.empty(n, 1)
        self._measure(self.target, n, points, distances, *self._tables, self.n_leaves)
        return distances

    def samples(self, uniform: Any, near: float = NEAR, wide: float = WIDE) -> Any:
        """Points [n, 3] in the unit cube, most of them near the surface.

        Args:
            uniform: random numbers in [0, 1), float32 [n, N_UNIFORM].
            near, wide: how far from the surface the first half and the next three eighths may be.
        """
        n = uniform.shape[0]
        points = self.target.empty(n, 3)
        numbers = (float(near), float(wide))
        self._sample(self.target, n, n, uniform, points, *numbers, *self._tables, self.n_leaves)
        return points


@cache
def functions_of(surface: Surface) -> tuple[Any, Any]:
    """Device functions of a surface, cached."""
    return surface.functions
