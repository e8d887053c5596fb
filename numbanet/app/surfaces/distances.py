"""Signed distances of a surface, and the points at which a network learns them."""

from functools import cache
from typing import Any, Protocol

import numpy as np
from numba import prange

from numbanet.app.surfaces.bvh import LEAF
from numbanet.cpu.launch import ParallelKernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ONE, ZERO, device
from numbanet.storage.views import float_matrix, float_vector
from numbanet.target import AbstractTarget
from numbanet.volumes.launch import Job

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


@device
def tables_at(pboxes, pcorners, pnormals, pareas, n_leaves):
    n = LEAF * n_leaves
    corners, normals = float_matrix(pcorners, n, 9), float_matrix(pnormals, n, 21)
    boxes, areas = float_matrix(pboxes, 2 * n_leaves, 6), float_vector(pareas, n)
    return boxes, corners, normals, areas, n_leaves


@cache
def distance_job(distance: Any) -> Job:
    """(n, points, distances, boxes, corners, normals, areas, n_leaves)"""

    @device
    def measure(p, tables):
        return distance(p[0], p[1], p[2], tables)

    @ParallelKernel
    def distances_on_host(n, points, distances, boxes, corners, normals, areas, n_leaves):
        for j in prange(n):
            distances[j, 0] = measure(points[j], (boxes, corners, normals, areas, n_leaves))

    def distances_on_device(
        n: UInt, ppoints: Address, pdistances: Address, pboxes: Address, pcorners: Address,
        pnormals: Address, pareas: Address, n_leaves: UInt,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            tables = tables_at(pboxes, pcorners, pnormals, pareas, n_leaves)
            float_vector(pdistances, n)[i] = measure(float_matrix(ppoints, n, 3)[i], tables)

    return Job(distances_on_host, distances_on_device)


@cache
def sample_job(surface_point: Any) -> Job:
    """(n, uniform numbers, points, near, wide, boxes, corners, normals, areas, n_leaves)"""

    @device
    def sample(i, n, u, point, near, wide, tables):
        group = i // (n // EIGHTH + 1)
        if group == 7:
            for d in range(3):
                point[d] = u[d]
            return
        surface_point(u, point, tables)
        width = near if group < 4 else wide
        for d in range(3):
            moved = point[d] + width * (u[3 + d] + u[6 + d] - ONE)
            point[d] = min(max(moved, ZERO), ONE)

    @ParallelKernel
    def samples_on_host(n, uniform, points, near, wide, boxes, corners, normals, areas, n_leaves):
        for j in prange(n):
            tables = boxes, corners, normals, areas, n_leaves
            sample(np.uint32(j), n, uniform[j], points[j], near, wide, tables)

    def samples_on_device(
        n: UInt, puniform: Address, ppoints: Address, near: Float, wide: Float, pboxes: Address,
        pcorners: Address, pnormals: Address, pareas: Address, n_leaves: UInt,
    ):  # fmt: skip
        i = thread_number()
        if i < n:
            tables = tables_at(pboxes, pcorners, pnormals, pareas, n_leaves)
            u, point = float_matrix(puniform, n, N_UNIFORM)[i], float_matrix(ppoints, n, 3)[i]
            sample(i, n, u, point, near, wide, tables)

    return Job(samples_on_host, samples_on_device)


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
        self._sample(self.target, n, uniform, points, *numbers, *self._tables, self.n_leaves)
        return points


@cache
def functions_of(surface: Surface) -> tuple[Any, Any]:
    """Device functions of a surface, cached."""
    return surface.functions
