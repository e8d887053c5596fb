"""The occupancy grid and the ray marcher, against loops in float64."""

import numpy as np
import pytest

from numbanet.app.fields.views import uploaded
from numbanet.random import Pcg32
from numbanet.volumes import OccupancyGrid
from numbanet.volumes.launch import integers
from numbanet.volumes.packing import pack
from numbanet.volumes.room import with_room

BOX = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
STEP = 0.09


def blobs(positions):
    """Densities of two balls, one of which reaches out of the inner box."""
    p = np.asarray(positions)
    first = np.linalg.norm(p - [0.3, -0.2, 0.1], axis=1) < 0.5
    second = np.linalg.norm(p - [-0.9, 0.6, 0.0], axis=1) < 0.6
    return (5.0 * first + 3.0 * second).astype(np.float32)


def made(target, n_levels=2):
    grid = OccupancyGrid(BOX, 8 if n_levels == 1 else 16, n_levels, device=target)
    grid.update(blobs, Pcg32(3), threshold=1.0)
    return grid


def cells_of(grid, points):
    """Level and cell of points, and how far they are from the borders of both, in cells."""
    centre, half = grid.box.mean(axis=0), (grid.box[1] - grid.box[0]) / 2
    u = (points - centre) / half
    size = np.abs(u).max(axis=1)
    level = np.clip(np.ceil(np.log2(np.maximum(size, 1e-9))), 0, grid.n_levels - 1).astype(int)
    at = (u / 2.0 ** level[:, None] + 1) * grid.resolution / 2
    cell = np.clip(np.floor(at), 0, grid.resolution - 1).astype(int)
    margin = np.abs(at - np.round(at)).min(axis=1)
    return level, cell, np.minimum(margin, np.abs(size - 1))


def naive_samples(grid, origins, directions, offsets, step):
    """Steps in occupied cells, as (ray, number, is it far from all borders); where rays begin."""
    low, high = grid.outer_box
    occupied, found, firsts = grid.occupied(), [], []
    directions = np.where(np.abs(directions) < 1e-12, 1e-12, directions.astype(float))
    for i, (o, d) in enumerate(zip(origins.astype(float), directions, strict=True)):
        ends = np.sort(np.stack([(low - o) / d, (high - o) / d]), axis=0)
        first, last = max(ends[0].max(), 0), ends[1].min()
        firsts.append(first + offsets[i] * step)
        starts = first + (np.arange(int(max(last - first, 0) / step) + 2) + offsets[i]) * step
        middles = starts + step / 2
        inside = middles < last
        level, cell, margin = cells_of(grid, o + middles[:, None] * d)
        is_in = inside & occupied[(level, *cell.T)]
        clear = (margin > 1e-3) & (np.abs(middles - last) > 1e-4)
        found += [(i, int(k), bool(clear[k])) for k in np.flatnonzero(is_in)]
    return found, np.array(firsts)


@pytest.mark.parametrize("n_levels", [1, 2])
def test_samples_are_the_steps_in_occupied_cells(target, rays, n_levels):
    origins, directions = rays
    grid = made(target, n_levels)
    offsets = np.random.default_rng(0).random(len(origins)).astype(np.float32)
    samples = grid.march(origins, directions, STEP, offsets=offsets)
    chosen, starts, positions, ranges = (
        np.asarray(each)
        for each in (samples.rays, samples.starts, samples.positions, samples.ranges)
    )
    n = samples.count()
    assert n == len(samples) == len(starts) > 100
    np.testing.assert_array_equal(np.repeat(np.arange(len(origins)), ranges[:, 1]), chosen)
    np.testing.assert_array_equal(ranges[:, 0], np.cumsum(ranges[:, 1]) - ranges[:, 1])
    assert ranges[4, 1] == 0
    np.testing.assert_array_equal(np.asarray(samples.lengths), np.full(n, STEP, np.float32))
    middles = origins[chosen] + (starts[:, None] + STEP / 2) * directions[chosen]
    np.testing.assert_allclose(positions, middles, atol=2e-6)
    wanted, firsts = naive_samples(grid, origins, directions, offsets, STEP)
    numbers = np.round((starts - firsts[chosen]) / STEP).astype(int)
    mine = set(zip(chosen.tolist(), numbers.tolist(), strict=True))
    clear = {(i, k) for i, k, is_clear in wanted if is_clear}
    any_of = {(i, k) for i, k, _ in wanted}
    assert len(clear) > 0.9 * n
    assert clear <= mine
    assert len(mine - any_of) <= 0.02 * n  # at borders roundings decide


def test_a_new_grid_is_full_and_an_update_finds_what_is_there(target):
    grid = OccupancyGrid(BOX, 16, 2, device=target)
    assert grid.occupied().all()
    grid.update(blobs, Pcg32(1), threshold=1.0)
    occupied = grid.occupied()
    assert occupied[0, 10, 6, 9]
    assert not occupied[0, 15, 15, 15]
    assert 0.02 < occupied.mean() < 0.5
    grid.update(lambda p: np.zeros((len(p), 1)), Pcg32(1), threshold=1.0, decay=0.3)
    left = np.asarray(grid.densities)
    assert left.max() == pytest.approx(0.3 * 5, rel=1e-5)
    grid.update(lambda p: np.zeros((len(p), 1)), Pcg32(1), threshold=1.0, decay=0.0)
    assert not grid.occupied().any()
    assert grid.n_cells == occupied.size == 8192


def test_the_mean_is_the_threshold_while_all_is_low(target):
    grid = OccupancyGrid(BOX, 4, device=target)
    values = np.linspace(0, 1e-3, 64).astype(np.float32)
    grid.update(lambda p: values, Pcg32(1), threshold=1.0)
    assert grid.occupied().sum() == 32


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_cells_without_a_number_are_not_taken_for_empty(target, value):
    grid = OccupancyGrid(BOX, 4, device=target)
    densities = np.zeros(64, np.float32)
    densities[7] = value
    grid.update(lambda p: densities.tolist(), Pcg32(1), threshold=1.0)
    assert grid.occupied().sum() == 1


def test_parts_of_the_cells_can_be_asked_for(target):
    asked = []

    def density(positions):
        asked.append(np.asarray(positions))
        return np.ones(len(asked[-1]))

    grid = OccupancyGrid(BOX, 8, device=target)
    for part in range(3):
        grid.update(density, Pcg32(1), threshold=2.0, part=part, n_parts=3)
    _, cell, _ = cells_of(grid, np.concatenate(asked).astype(float))
    assert sorted(map(tuple, cell)) == list(np.ndindex(8, 8, 8))
    assert np.asarray(grid.densities).min() == 1


def test_what_has_no_room_is_left_out(target, rays):
    grid = made(target)
    whole = grid.march(*rays, STEP)
    n, counts = whole.count(), np.asarray(whole.ranges)[:, 1]
    room = int(0.6 * n)
    samples = grid.march(*rays, STEP, room=room)
    ranges = np.asarray(samples.ranges)
    fits = np.cumsum(counts) <= room
    np.testing.assert_array_equal(ranges[:, 1], np.where(fits, counts, 0))
    assert np.asarray(samples.total).tolist() == [counts[fits].sum(), n]
    kept = int(counts[fits].sum())
    assert not np.asarray(samples.rays)[kept:].any()
    starts = np.asarray(whole.starts)[:kept].copy()
    np.testing.assert_array_equal(np.asarray(samples.starts)[:kept], starts)
    again = grid.march(*rays, STEP, room=samples)
    assert again.starts is samples.starts
    np.testing.assert_array_equal(np.asarray(again.starts)[:kept], starts)


def test_near_far_and_cones_bound_the_steps(target, rays):
    grid = made(target)
    samples = grid.march(*rays, STEP, near=2.4, far=3.5, cone=0.05)
    starts, lengths = np.asarray(samples.starts), np.asarray(samples.lengths)
    assert len(starts) > 10
    assert starts.min() >= 2.4
    assert (starts + lengths / 2).max() < 3.5
    np.testing.assert_allclose(lengths, np.maximum(STEP, 0.05 * starts), rtol=1e-6)


def test_no_rays_have_no_samples(target):
    none = np.zeros((0, 3))
    samples = OccupancyGrid(BOX, 4, device=target).march(none, none, 0.1)
    assert (len(samples), samples.count(), samples.n_rays) == (0, 0, 0)


def test_what_is_no_ray_has_no_samples(target):
    rays = []
    for axis in range(3):
        for value in (np.nan, np.inf, -np.inf):
            origin, direction = np.full((2, 3), 0.1), np.full((2, 3), -0.57)
            origin[0, axis], direction[1, axis] = value, value
            rays += [*zip(origin, direction, strict=True)]
    rays += [((0, 0, 0), (0, 0, 0)), ((1e-9, 0, 0), (0, 1e-20, 0))]
    rays += [((0, 0, -1e7), (0, 0, 1)), ((0, 0, 3e38), (0, 0, -1)), ((0, 0, 0), (0, 0, 1))]
    origins, directions = np.array(rays, np.float32).transpose(1, 0, 2)
    samples = OccupancyGrid(BOX, 4, device=target).march(origins, directions, 0.1, room=64)
    counts = np.asarray(samples.ranges)[:, 1]
    assert counts.tolist() == [0] * (len(rays) - 1) + [10]


def test_sums_of_samples_do_not_wrap(target):
    """Not even where rays have more than 2^32 together, after which the last ones would fit."""
    n, many = 5000, 1 << 20
    counts = np.array([3, 4] + [many] * (n - 4) + [5, 6], np.uint32)
    ranges, total = integers(target, n, 2), integers(target, 2)
    pack(target, uploaded(counts, target), 1000, ranges, total)
    assert np.asarray(ranges)[:, 1].tolist() == [3, 4] + [0] * (n - 2)
    assert np.asarray(total).tolist() == [7, 2**32 - 1]


def test_more_samples_than_can_be_counted_are_refused(target):
    counts = uploaded(np.full(5000, 1 << 20, np.uint32), target)
    with pytest.raises(ValueError, match="use fewer rays"):
        with_room(target, counts, integers(target, 5000, 2), integers(target, 2), None)


def test_arrays_are_as_long_as_rays_need_them(target, rays):
    samples = made(target).march(*rays, STEP, room=2000)
    n = samples.count()
    assert len(samples.first(n)) == n
    for wrong in (n - 1, -1, 2001):
        with pytest.raises(ValueError, match="first"):
            samples.first(wrong)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": ((0, 0, 0), (1, 1))}, "box"),
        ({"box": ((0, 0, 0), (1, 0, 1))}, "box"),
        ({"box": ((0, 0, 0), (1, np.nan, 1))}, "box"),
        ({"box": ((0, 0, 0), (1, 1e-42, 1))}, "too small"),
        ({"resolution": 6}, "multiple of 4"),
        ({"resolution": 24, "n_levels": 2}, "multiple of 16"),
        ({"resolution": 0}, "resolution"),
        ({"resolution": 1024, "n_levels": 16}, "too many"),
        ({"n_levels": True}, "n_levels"),
    ],
)
def test_grids_that_cannot_be(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        OccupancyGrid(**{"box": BOX, "resolution": 8, "device": "cpu"} | options)


@pytest.mark.parametrize(
    ("step", "options", "words"),
    [
        (0.0, {}, "step"),
        (1e-9, {}, "step"),
        (np.nan, {}, "step"),
        (0.1, {"near": 2, "far": 1}, "near, far"),
        (0.1, {"near": -1}, "near, far"),
        (0.1, {"cone": 1.0}, "cone"),
        (0.1, {"room": -1}, "room"),
        ("0.1", {}, "step"),
        (0.1, {"near": "1"}, "near"),
        (0.1, {"cone": None}, "cone"),
        (np.complex64(0.1), {}, "step"),
        (0.1, {"offsets": np.zeros(3)}, "offsets"),
    ],
)
def test_marches_that_cannot_be(rays, step, options, words):
    grid = OccupancyGrid(BOX, 4, device="cpu")
    with pytest.raises(ValueError, match=words):
        grid.march(*rays, step, **options)


@pytest.mark.parametrize("large", [1e39, 10**400], ids=["float", "int"])
def test_numbers_beyond_float32_count_as_large(rays, large):
    grid = OccupancyGrid(BOX, 4, device="cpu")
    assert grid.march(*rays, STEP, far=large).count() == grid.march(*rays, STEP).count() > 0
    assert grid.march(*rays, STEP, near=large, far=large).count() == 0
    assert grid.march(*rays, large).count() == 0
    grid.update(blobs, Pcg32(1), threshold=large)
    assert 0 < grid.occupied().mean() < 1


def test_updates_that_cannot_be():
    grid = OccupancyGrid(BOX, 4, device="cpu")
    with pytest.raises(ValueError, match="density"):
        grid.update(lambda p: np.zeros(3), Pcg32(1), threshold=1.0)
    with pytest.raises(ValueError, match="threshold"):
        grid.update(blobs, Pcg32(1), threshold=np.nan)
    with pytest.raises(ValueError, match="density"):
        grid.update(lambda p: None, Pcg32(1), threshold=1.0)
    with pytest.raises(TypeError, match="rng"):
        grid.update(blobs, np.random.default_rng(1), threshold=1.0)
    for wrong in (np.nan, "1", -1, np.complex64(1)):
        with pytest.raises(ValueError, match="threshold"):
            grid.set_bits(wrong)
    with pytest.raises(ValueError, match="part"):
        grid.update(blobs, Pcg32(1), threshold=1.0, part=2, n_parts=2)
