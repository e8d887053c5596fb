"""Ray marching through an occupancy grid: one ray is one job.

Each ray is walked twice, first to count its samples and then to write them where the sums of these
counts say, so that samples are packed and their order is the same in every run. Steps begin where
the ray enters the grid, plus a fraction of a step; they are `step` long, or `cone` times the
distance where that is more. A step belongs to a cell by its middle; one in an empty cell moves on
by as many steps as it takes to leave the cell, or the brick.

Invalid rays have no samples: numbers that are infinite or NaN, a direction of no length, and an
origin so far away that steps are lost in rounding.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.cuda.launch.types import Float, UInt
from numbanet.device import HALF, ONE, ZERO, device, floor_to_int, nothing, power_of_two
from numbanet.volumes.cells import TINY, bit_of, cell_along, level_of, nonzero, to_border, word_of
from numbanet.volumes.launch import Floats, Job, Ranges, Rows, UInts

MOST_TURNS = 1 << 16  # of a ray; more than any ray needs, if its steps move it
LONG = np.float32(1e30)
SLOW = np.float32(4.0) * TINY  # less than this is no direction


@device
def entry(p, d, size):  # of one axis: where a ray is within [-size, size]
    a, b = (-size - p) / d, (size - p) / d
    return min(a, b), max(a, b)


@device
def step_at(t, step, cone):
    return max(step, t * cone)


@device
def wait(point, direction, grid):
    """Whether the cell of a point is occupied and, if not, how long to its border or its brick's.

    The point and the direction are in units of half the box.
    """
    (px, py, pz), (dx, dy, dz), (bits, n_levels, resolution) = point, direction, grid
    level = level_of(px, py, pz, n_levels)
    scale = power_of_two(-level)
    x, qx = cell_along(px, scale, resolution)
    y, qy = cell_along(py, scale, resolution)
    z, qz = cell_along(pz, scale, resolution)
    word = bits[word_of(x, y, z, np.uint32(level), resolution)]
    is_occupied = (word >> bit_of(x, y, z)) & 1 != 0
    wide = np.uint32(4) if word == 0 else np.uint32(1)
    deep = np.uint32(2) if word == 0 else np.uint32(1)
    rate = scale * (HALF * np.float32(resolution))
    time = min(to_border(qx, x, wide, dx * rate), to_border(qy, y, wide, dy * rate))
    return is_occupied, min(time, to_border(qz, z, deep, dz * rate))


@cache
def walk(visit: Callable):
    """Device function that calls visit(k, i, t, dt, *outputs) for each sample of ray i.

    It returns how many samples there were. `frame` holds the centre of level 0 and the reciprocals
    of half its sizes; `limits` are near, far, step, cone; `grid` is bits, n_levels, resolution.
    """

    @device
    def walk_ray(i, rays, frame, grid, limits, bounds, *outputs):
        (origins, directions, starts), (first, most) = rays, bounds
        near, far, step, cone = limits
        ox, dx = (origins[i, 0] - frame[0]) * frame[3], nonzero(directions[i, 0] * frame[3])
        oy, dy = (origins[i, 1] - frame[1]) * frame[4], nonzero(directions[i, 1] * frame[4])
        oz, dz = (origins[i, 2] - frame[2]) * frame[5], nonzero(directions[i, 2] * frame[5])
        size = power_of_two(np.int32(grid[1]) - np.int32(1))
        first_x, last_x = entry(ox, dx, size)
        first_y, last_y = entry(oy, dy, size)
        first_z, last_z = entry(oz, dz, size)
        t = max(near, first_x, first_y, first_z)
        stop = min(far, last_x, last_y, last_z)
        t += max(starts[i], ZERO) * step_at(t, step, cone)
        speed, distance = abs(dx) + abs(dy) + abs(dz), abs(ox) + abs(oy) + abs(oz)
        is_ray = speed > SLOW and speed < LONG and distance < LONG  # which NaN is not
        if not is_ray or stop + HALF * step_at(stop, step, cone) <= stop:
            stop = t  # steps would not move it
        n, turns = np.uint32(0), 0
        while t < stop and n < most and turns < MOST_TURNS:
            dt = step_at(t, step, cone)
            middle = t + HALF * dt
            occupied, time = wait(
                (ox + middle * dx, oy + middle * dy, oz + middle * dz), (dx, dy, dz), grid
            )
            if occupied and middle < stop:
                visit(first + n, i, t, dt, *outputs)
                n += 1
                t += dt
            else:
                n_steps = min(time / dt, LONG)
                t += dt * (np.float32(floor_to_int(min(n_steps, np.float32(MOST_TURNS)))) + ONE)
            turns += 1
        return n

    return walk_ray


@device
def write_sample(k, i, t, dt, rays, outputs):
    (origins, directions, _), (positions, all_starts, lengths, chosen) = rays, outputs
    middle = t + HALF * dt
    for d in range(3):
        positions[k, d] = origins[i, d] + middle * directions[i, d]
    all_starts[k], lengths[k], chosen[k] = t, dt, i


count_ray, write_ray = walk(nothing), walk(write_sample)
WHOLE = np.uint32(0), np.uint32(0xFFFFFFFF)  # no bounds


@Job
def count_samples(
    i, origins: Rows(3), directions: Rows(3), starts: Floats, frame: Floats, bits: UInts,
    n_levels: UInt, resolution: UInt, near: Float, far: Float, step: Float, cone: Float,
    counts: UInts,
):  # fmt: skip
    rays, grid = (origins, directions, starts), (bits, n_levels, resolution)
    counts[i] = count_ray(i, rays, frame, grid, (near, far, step, cone), WHOLE)


@Job
def write_samples(
    i, origins: Rows(3), directions: Rows(3), starts: Floats, frame: Floats, bits: UInts,
    n_levels: UInt, resolution: UInt, near: Float, far: Float, step: Float, cone: Float,
    ranges: Ranges, positions: Rows(3), all_starts: Floats, lengths: Floats, chosen: UInts,
):  # fmt: skip
    rays, grid = (origins, directions, starts), (bits, n_levels, resolution)
    bounds, outputs = (ranges[i, 0], ranges[i, 1]), (positions, all_starts, lengths, chosen)
    write_ray(i, rays, frame, grid, (near, far, step, cone), bounds, rays, outputs)
