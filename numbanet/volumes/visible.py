"""Visible samples: of each ray, those that enough light reaches."""

from dataclasses import replace
from typing import Any

import numpy as np

from numbanet.array_types import Array, ArrayLike
from numbanet.cuda.launch.types import Float
from numbanet.device import ONE, exp
from numbanet.shown import shown
from numbanet.volumes.launch import Floats, Job, Ranges, Rows, UInts, integers, zero_integers
from numbanet.volumes.room import check_least, with_room
from numbanet.volumes.samples import Samples


@Job
def count_lit(i, ranges: Ranges, densities: Floats, lengths: Floats, least: Float, counts: UInts):
    first, count = ranges[i, 0], ranges[i, 1]
    light, n = ONE, np.uint32(0)
    while n < count and light >= least:
        light *= exp(-densities[first + n] * lengths[first + n])
        n += 1
    counts[i] = n


@Job
def copy_lit(
    i, old_ranges: Ranges, positions: Rows(3), starts: Floats, lengths: Floats, ranges: Ranges,
    new_positions: Rows(3), new_starts: Floats, new_lengths: Floats, rays: UInts, sources: UInts,
):  # fmt: skip
    for j in range(ranges[i, 1]):
        k, source = ranges[i, 0] + np.uint32(j), old_ranges[i, 0] + np.uint32(j)
        for d in range(3):
            new_positions[k, d] = positions[source, d]
        new_starts[k], new_lengths[k] = starts[source], lengths[source]
        rays[k], sources[k] = i, source


def earlier(room: tuple) -> tuple[Samples, Array]:
    """Result of an earlier call, checked; raises ValueError where it is something else."""
    good = len(room) == 2 and isinstance(room[0], Samples)
    good = good and getattr(room[1], "dtype", None) == np.uint32
    if not good or room[1].shape != (len(room[0]),):
        raise ValueError(f"room: expected what visible returned, got {shown(room)}")
    return room


def visible(
    samples: Samples,
    densities: ArrayLike,
    *,
    least: float = 1e-4,
    room: int | tuple[Samples, Array] | None = None,
) -> tuple[Samples, Array]:
    """Samples that at least a fraction `least` of the light reaches.

    Args:
        densities: per unit of length, float32 [n].
        room: None for as many as there are, for which a GPU is waited for; or how many at most, or
            what an earlier call gave, whose arrays are used again.

    Returns:
        The samples, and for each its number among all, uint32 [n].

    Raises:
        TypeError, ValueError: an argument is not allowed.
    """
    target, n = samples.target, samples.n_rays
    densities = target.vector(densities, "densities", len(samples))
    check_least(least)
    counts, ranges, total = (integers(target, *shape) for shape in ((n,), (n, 2), (2,)))
    sources: Any = None
    if isinstance(room, tuple):
        room, sources = earlier(room)
    if n == 0:
        return replace(samples), integers(target, 0)
    count_lit(target, n, samples.ranges, densities, samples.lengths, float(least), counts)
    kept = with_room(target, counts, ranges, total, room)
    sources = zero_integers(target, len(kept)) if sources is None else sources
    copy_lit(
        target, n, samples.ranges, samples.positions, samples.starts, samples.lengths, ranges,
        kept.positions, kept.starts, kept.lengths, kept.rays, sources,
    )  # fmt: skip
    return kept, sources
