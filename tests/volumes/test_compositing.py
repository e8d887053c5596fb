"""Compositing and its gradients, against float64 and differences."""

import numpy as np
import pytest

from numbanet.volumes import OccupancyGrid, composite, composite_backward, visible
from numbanet.volumes.samples import Samples


def samples_on(target, counts, seed=0):
    """Samples of rays that have so many, with random intervals."""
    rng, total = np.random.default_rng(seed), int(np.sum(counts))
    lengths = rng.uniform(0.05, 0.3, total).astype(np.float32)
    ends = np.cumsum(counts)
    ranges = np.stack([ends - counts, counts], axis=1).astype(np.uint32)
    starts = np.concatenate(
        [np.cumsum(lengths[e - c : e]) for e, c in zip(ends, counts, strict=True)]
    )
    box = OccupancyGrid(resolution=4, device=target)
    none = np.zeros((0, 3), np.float32)
    empty = box.march(none, none, 0.1)
    upload = target.from_host
    if target.name != "cpu":
        from numbanet.cuda.memory.arrays import to_device

        def upload(array):
            return to_device(array, target.device)

    rays = np.repeat(np.arange(len(counts), dtype=np.uint32), counts)
    return Samples(
        upload(np.zeros((total, 3), np.float32)), upload((starts + 1).astype(np.float32)),
        upload(lengths), upload(rays), upload(ranges),
        upload(np.array([total, total], np.uint32)), empty.target,
    )  # fmt: skip


def naive(samples, densities, colours, backgrounds):
    """Colours, opacities, depths, transmittances, in float64."""
    starts, lengths, ranges = (
        np.asarray(each).astype(float) for each in (samples.starts, samples.lengths, samples.ranges)
    )
    seen, opacities, depths, through = [], [], [], np.zeros(len(starts))
    for i, (first, count) in enumerate(ranges.astype(int)):
        here = slice(first, first + count)
        kept = np.exp(-densities[here] * lengths[here])
        light = np.concatenate([[1.0], np.cumprod(kept)])
        weights = light[:-1] * (1 - kept)
        through[here] = light[:-1]
        seen.append(weights @ colours[here] + light[-1] * backgrounds[i % len(backgrounds)])
        opacities.append(1 - light[-1])
        depths.append(weights @ (starts[here] + lengths[here] / 2))
    return np.array(seen), np.array(opacities), np.array(depths), through


COUNTS = np.array([5, 0, 1, 17, 40, 3])


def values(n, n_channels, seed=1):
    rng = np.random.default_rng(seed)
    densities = rng.exponential(1.5, n) * (rng.random(n) < 0.8)
    return densities.astype(np.float32), rng.random((n, n_channels)).astype(np.float32)


@pytest.mark.parametrize(("n_channels", "n_backgrounds"), [(3, 6), (3, 1), (1, 6), (5, 1)])
def test_rays_see_what_the_formula_says(target, n_channels, n_backgrounds):
    samples = samples_on(target, COUNTS)
    densities, colours = values(len(samples), n_channels)
    backgrounds = np.random.default_rng(2).random((n_backgrounds, n_channels)).astype(np.float32)
    seen = composite(samples, densities, colours, backgrounds, least=0)
    found = seen.colours, seen.opacities, seen.depths, seen.transmittances
    wanted = naive(samples, densities, colours, backgrounds)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.asarray(mine), theirs, atol=2e-6)


def objective(samples, densities, colours, backgrounds, weights):
    seen, opacities, depths, _ = naive(samples, densities, colours, backgrounds)
    return np.sum(weights[0] * seen) + weights[1] @ opacities + weights[2] @ depths


def test_gradients_are_differences(target):
    samples = samples_on(target, COUNTS)
    n, rng = len(samples), np.random.default_rng(3)
    densities, colours = values(n, 3)
    backgrounds = rng.random((6, 3)).astype(np.float32)
    weights = rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=6)
    seen = composite(samples, densities, colours, backgrounds, least=0)
    dl_ddensities, dl_dcolours = composite_backward(
        seen, weights[0], dl_dopacities=weights[1], dl_ddepths=weights[2]
    )
    h, fixed = 1e-4, (backgrounds.astype(float), weights)
    densities, colours = densities.astype(float), colours.astype(float)
    for k in range(n):
        for array, found in ((densities, dl_ddensities), (colours.reshape(-1), dl_dcolours)):
            at = k if array is densities else 3 * k + k % 3
            before = array[at]
            array[at] = before + h
            above = objective(samples, densities, colours, *fixed)
            array[at] = before - h
            below = objective(samples, densities, colours, *fixed)
            array[at] = before
            mine = np.asarray(found).reshape(-1)[at]
            assert mine == pytest.approx((above - below) / (2 * h), abs=3e-5, rel=1e-3)


def test_samples_that_light_does_not_reach_count_as_absent(target):
    samples = samples_on(target, np.array([30]))
    densities, colours = np.full(30, 12.0), np.linspace(0, 1, 90).reshape(30, 3)
    whole = composite(samples, densities, colours, (1, 1, 1), least=0)
    seen = composite(samples, densities, colours, (1, 1, 1), least=1e-3)
    reached = np.asarray(whole.transmittances) >= 1e-3
    assert 0 < reached.sum() < 30
    np.testing.assert_array_equal(np.asarray(seen.transmittances) > 0, reached)
    np.testing.assert_allclose(np.asarray(seen.colours), np.asarray(whole.colours), atol=2e-3)
    gradients = composite_backward(seen, np.ones((1, 3)))
    for each in gradients:
        assert not np.asarray(each)[~reached].any()
    kept, sources = visible(samples, densities, least=1e-3)
    assert kept.count() == reached.sum()
    np.testing.assert_array_equal(np.asarray(sources), np.flatnonzero(reached))
    np.testing.assert_array_equal(
        np.asarray(kept.starts), np.asarray(samples.starts)[np.asarray(sources)]
    )
    again = composite(kept, densities[reached], colours[reached], (1, 1, 1))
    np.testing.assert_allclose(np.asarray(again.colours), np.asarray(seen.colours), atol=1e-6)


def test_visible_samples_take_the_room_they_get(target):
    samples = samples_on(target, COUNTS)
    densities = np.zeros(len(samples))
    kept, sources = visible(samples, densities)
    assert len(kept) == len(samples)
    np.testing.assert_array_equal(np.asarray(kept.ranges), np.asarray(samples.ranges))
    few, sources = visible(samples, densities, room=25)
    assert np.asarray(few.total).tolist() == [23, 66]
    assert not np.asarray(few.rays)[23:].any()
    assert not np.asarray(sources)[23:].any()
    seen = composite(few, densities[:25], np.ones((25, 3)))
    assert np.asarray(seen.transmittances).tolist() == [1.0] * 23 + [0.0] * 2
    again, same = visible(samples, densities, room=(few, sources))
    assert same is sources
    assert again.starts is few.starts
    for wrong in ((few,), (few, np.zeros(25)), (few, np.zeros(24, np.uint32)), ("few", sources)):
        with pytest.raises(ValueError, match="room"):
            visible(samples, densities, room=wrong)


def test_extreme_densities_give_finite_numbers(target):
    samples = samples_on(target, np.array([6, 6]))
    densities = np.array([0, 1e30, 1e4, 1e-30, 5, 1e38] * 2, np.float32)
    colours = np.ones((12, 3), np.float32)
    seen = composite(samples, densities, colours, (0, 0, 0), least=0)
    found = composite_backward(seen, np.ones((2, 3)))
    for each in (seen.colours, seen.opacities, seen.depths, *found):
        assert np.isfinite(np.asarray(each)).all()
    np.testing.assert_allclose(np.asarray(seen.opacities), 1, atol=1e-6)


def test_what_does_not_fit_is_told(target):
    samples = samples_on(target, COUNTS)
    densities, colours = values(len(samples), 3)
    for arguments, words in (
        ((densities[1:], colours), "densities"),
        ((densities, colours[1:]), "colours"),
        ((densities, colours[:, 0]), "colours"),
        ((densities, np.zeros((len(samples), 40))), "channels"),
        ((densities, colours, (1, 1)), "background"),
        ((densities, colours, np.ones((4, 3))), "background"),
    ):
        with pytest.raises(ValueError, match=words):
            composite(samples, *arguments)
    with pytest.raises(ValueError, match="least"):
        composite(samples, densities, colours, least=1.0)
    seen = composite(samples, densities, colours)
    with pytest.raises(ValueError, match="dl_dcolours"):
        composite_backward(seen, np.ones((5, 3)))
    for wrong in (3, (densities,)):
        with pytest.raises(TypeError, match="out"):
            composite_backward(seen, np.ones((6, 3)), out=wrong)
        with pytest.raises(TypeError, match="out"):
            composite(samples, densities, colours, out=wrong)
