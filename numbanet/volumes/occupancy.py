"""Occupancy grid: empty parts of a scene, as a bit for each cell.

As in Mueller et al. 2022 (instant-ngp, appendix E.2): the grid keeps the largest density seen in
each cell, which fades, and a cell is occupied where that is above a threshold, or above the mean
while all are low.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.array_types import Array, ArrayLike
from numbanet.arrays import as_host_matrix
from numbanet.random import Pcg32
from numbanet.shown import shown
from numbanet.target import AbstractTarget
from numbanet.targets import target_for
from numbanet.volumes import grid_jobs
from numbanet.volumes.cells import CELLS
from numbanet.volumes.launch import integers, shape_of
from numbanet.volumes.marching import MOST_TURNS, count_samples, write_samples
from numbanet.volumes.room import NUMBERS, amount, bounded, empty_samples, whole, with_room
from numbanet.volumes.samples import Samples

MOST_CELLS = 1 << 31
LEAST_SIDE = 1e-6  # of a box


class OccupancyGrid:
    """Occupancy bits of a scene's cells. A new grid is occupied everywhere.

    Args:
        box: the lowest and the highest corner of the finest level, [2, 3].
        resolution: cells along each axis, a multiple of 4, and of 16 for several levels.
        n_levels: each level is twice as large as the one before, with as many cells.
        device: "auto", "cpu", "cuda" or "cuda:N", as for create_from_config.

    Raises:
        ValueError: an argument is not allowed.
        RuntimeError: the device cannot be used.
    """

    def __init__(
        self,
        box: ArrayLike = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        resolution: int = 128,
        n_levels: int = 1,
        *,
        device: Any = "auto",
    ):
        self.box = as_host_matrix(box, "box", 3, 2).astype(np.float64)
        if not np.isfinite(self.box).all() or not (self.box[0] < self.box[1]).all():
            raise ValueError(
                f"box: {shown(box)} is not allowed; use finite numbers, the second corner above "
                "the first"
            )
        if not (np.diff(self.box, axis=0) > LEAST_SIDE).all():
            raise ValueError(f"box: {shown(box)} is too small; use sides above {LEAST_SIDE:g}")
        self.resolution = whole("resolution", resolution, 4, 1024)
        self.n_levels = whole("n_levels", n_levels, 1, 16)
        divisor = 4 if n_levels == 1 else 16  # so that bricks do not reach into a finer level
        if resolution % divisor:
            raise ValueError(
                f"resolution: {resolution} is not allowed; use a multiple of {divisor} for "
                f"{n_levels} levels"
            )
        self.n_cells = self.n_levels * self.resolution**3
        if self.n_cells >= MOST_CELLS:
            raise ValueError(f"resolution: {resolution}^3 cells on {n_levels} levels are too many")
        self.target: AbstractTarget = (
            device if isinstance(device, AbstractTarget) else target_for(device, None)
        )
        centre, half = self.box.mean(axis=0), (self.box[1] - self.box[0]) / 2
        frame = np.concatenate([centre, 1 / half]).astype(np.float32)
        self._frame = self.target.from_host(frame)
        self.densities = self.target.zeros(self.n_cells)
        self.bits = integers(self.target, self.n_cells // CELLS)
        self.fill()

    @property
    def device(self) -> str:
        """Device of the grid, such as "cpu" or "cuda:0"."""
        return self.target.name

    @property
    def outer_box(self) -> np.ndarray:
        """Corners of the coarsest level, [2, 3]."""
        centre, half = self.box.mean(axis=0), (self.box[1] - self.box[0]) / 2
        return np.stack(
            [centre - half * 2 ** (self.n_levels - 1), centre + half * 2 ** (self.n_levels - 1)]
        )

    def fill(self) -> None:
        """Set all cells to occupied."""
        grid_jobs.fill_bits(self.target, self.n_cells // CELLS, self.bits)

    def occupied(self) -> np.ndarray:
        """Copy of the bits on the host, bool [n_levels, x, y, z]."""
        words = self.target.to_host(self.bits).astype("<u4", copy=False)
        n = self.resolution
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        bits = bits.reshape(self.n_levels, n // 2, n // 4, n // 4, 2, 4, 4)  # words, then z, y, x
        return bits.transpose(0, 3, 6, 2, 5, 1, 4).reshape(self.n_levels, n, n, n).astype(bool)

    def update(
        self,
        density: Callable[[Array], ArrayLike],
        rng: Pcg32,
        *,
        threshold: float,
        part: int = 0,
        n_parts: int = 1,
        decay: float = 0.95,
    ) -> None:
        """Update the bits with the density at a random point of every cell, or of some.

        Args:
            density: takes positions, float32 [n, 3], and returns densities [n] or [n, 1]; where
                they are infinite or NaN, cells are occupied.
            threshold: a cell is occupied if its density is above this, or above the mean density
                of all cells where that is less.
            part, n_parts: ask for cells `part`, `part + n_parts`, ... only.
            decay: factor of a cell's density before the next update.

        Raises:
            TypeError, ValueError: an argument is not allowed, or the densities do not fit.
        """
        n_parts = whole("n_parts", n_parts, 1, self.n_cells)
        part = whole("part", part, 0, n_parts - 1)
        threshold, decay = amount("threshold", threshold), amount("decay", decay)
        if not isinstance(rng, Pcg32):
            raise TypeError(f"rng: expected a numbanet.random.Pcg32, got {shown(rng)}")
        n = -(-(self.n_cells - part) // n_parts)
        target = self.target
        offsets, positions = rng.uniform(3 * n, target), target.empty(n, 3)
        grid_jobs.place_points(
            target, n, part, n_parts, self.resolution, self._frame, offsets, positions
        )
        found: Any = density(positions)
        if len(shape_of(found)) == 2:
            found = target.matrix(found, "density", 1, n).reshape(n)
        found = target.vector(found, "density", n)
        grid_jobs.merge(target, n, part, n_parts, decay, found, self.densities)
        self.set_bits(threshold)

    def set_bits(self, threshold: float) -> None:
        """Set the cells to occupied whose density is above the threshold, or above the mean.

        Raises:
            ValueError: the threshold is not allowed.
        """
        threshold = amount("threshold", threshold)
        target, mean = self.target, self.target.empty(1)
        grid_jobs.mean_of(target, self.densities, mean)
        grid_jobs.set_bits(
            target, self.n_cells // CELLS, self.densities, mean, threshold, self.bits
        )

    def march(
        self,
        origins: ArrayLike,
        directions: ArrayLike,
        step: float,
        *,
        near: float = 0.0,
        far: float = 1e10,
        cone: float = 0.0,
        offsets: ArrayLike | None = None,
        room: int | Samples | None = None,
    ) -> Samples:
        """Intervals of rays outside of empty cells.

        Args:
            origins, directions: float32 [n_rays, 3]; distances are in units of a direction's
                length, so these are usually normalised. Rays with numbers that are infinite or
                NaN, or without a direction, have no samples, and so have those from so far away
                that float32 cannot tell two steps apart.
            step: the length of an interval.
            near, far: where rays begin and end.
            cone: intervals are at least this times the distance.
            offsets: of the first step of each ray, in steps, [n_rays], not negative; for rays that
                begin at random. 0 by default.
            room: None for as many samples as there are, for which a GPU is waited for; or arrays
                of a fixed length: how many samples, or what an earlier call gave, whose arrays are
                used again. Rays whose samples find no room have none then.

        Raises:
            TypeError, ValueError: an argument is not allowed.
        """
        target = self.target
        origins = target.matrix(origins, "origins", 3)
        n = origins.shape[0]
        directions = target.matrix(directions, "directions", 3, n)
        offsets = target.zeros(n) if offsets is None else target.vector(offsets, "offsets", n)
        limits = self._limits(step, near, far, cone)
        march = origins, directions, offsets, self._frame, self.bits, self.n_levels, self.resolution
        counts, ranges, total = (integers(target, *shape) for shape in ((n,), (n, 2), (2,)))
        if n == 0:
            return empty_samples(target)
        count_samples(target, n, *march, *limits, counts)
        samples = with_room(target, counts, ranges, total, room)
        write_samples(
            target, n, *march, *limits, ranges,
            samples.positions, samples.starts, samples.lengths, samples.rays,
        )  # fmt: skip
        return samples

    def _limits(self, step: Any, near: Any, far: Any, cone: Any) -> tuple[float, ...]:
        """Return near, far, step and cone as the kernels take them; raises ValueError."""
        limits = {"step": step, "near": near, "far": far, "cone": cone}
        for name, value in limits.items():
            if not isinstance(value, NUMBERS):
                raise ValueError(f"{name}: {shown(value)} is not allowed; use a number")
        size = float(np.linalg.norm(self.outer_box[1] - self.outer_box[0]))
        if not size / MOST_TURNS < step < math.inf:
            raise ValueError(
                f"step: {shown(step)} is not allowed; use more than {size / MOST_TURNS:.3g}, the "
                f"grid's diagonal over {MOST_TURNS}"
            )
        if not 0 <= near <= far or near == math.inf:
            raise ValueError(f"near, far: {shown(near)}, {shown(far)}; use 0 <= near <= far")
        if not 0 <= cone < 1:
            raise ValueError(f"cone: {shown(cone)} is not allowed; use a number from 0 to below 1")
        return bounded(near), bounded(far), bounded(step), float(cone)
