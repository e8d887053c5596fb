"""Visible samples: of each ray, those that enough light reaches."""

from dataclasses import replace
from typing import Any

import numpy as np
from numba import prange

from numbanet.array_types import Array, ArrayLike
from numbanet.cpu.launch import ParallelKernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ONE, device, exp
from numbanet.shown import shown
from numbanet.storage.views import float_matrix, float_vector, uint32_vector
from numbanet.volumes.launch import Job, integers, zero_integers
from numbanet.volumes.room import check_least, with_room
from numbanet.volumes.samples import Samples

ANY = np.uint32(0xFFFFFFFF)


@device
def count_lit(first, count, densities, lengths, least):
    light, n = ONE, np.uint32(0)
    while n < count and light >= least:
        light *= exp(-densities[first + n] * lengths[first + n])
        n += 1
    return n


@device
def copy_lit(i, first, ranges, positions, starts, lengths, kept, sources):
    new_positions, new_starts, new_lengths, rays = kept
    for j in range(ranges[2 * i + 1]):
        k, source = ranges[2 * i] + np.uint32(j), first + np.uint32(j)
        for d in range(3):
            new_positions[k, d] = positions[source, d]
        new_starts[k], new_lengths[k] = starts[source], lengths[source]
        rays[k], sources[k] = i, source


@ParallelKernel
def count_on_host(n, ranges, densities, lengths, least, counts):
    for i in prange(n):
        counts[i] = count_lit(ranges[i, 0], ranges[i, 1], densities, lengths, least)


def count_on_device(
    n: UInt, pranges: Address, pdensities: Address, plengths: Address, least: Float,
    pcounts: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        ranges = uint32_vector(pranges, 2 * n)
        uint32_vector(pcounts, n)[i] = count_lit(
            ranges[2 * i], ranges[2 * i + 1], float_vector(pdensities, ANY),
            float_vector(plengths, ANY), least,
        )  # fmt: skip


@ParallelKernel
def copy_on_host(
    n, old_ranges, positions, starts, lengths, new_ranges, new_positions, new_starts, new_lengths,
    rays, sources,
):  # fmt: skip
    ranges = new_ranges.reshape(-1)
    for i in prange(n):
        copy_lit(
            np.uint32(i), old_ranges[i, 0], ranges, positions, starts, lengths,
            (new_positions, new_starts, new_lengths, rays), sources,
        )  # fmt: skip


def copy_on_device(
    n: UInt, pold_ranges: Address, ppositions: Address, pstarts: Address, plengths: Address,
    pnew_ranges: Address, pnew_positions: Address, pnew_starts: Address, pnew_lengths: Address,
    prays: Address, psources: Address,
):  # fmt: skip
    i = thread_number()
    if i < n:
        kept = (
            float_matrix(pnew_positions, ANY, 3), float_vector(pnew_starts, ANY),
            float_vector(pnew_lengths, ANY), uint32_vector(prays, ANY),
        )  # fmt: skip
        copy_lit(
            i, uint32_vector(pold_ranges, 2 * n)[2 * i], uint32_vector(pnew_ranges, 2 * n),
            float_matrix(ppositions, ANY, 3), float_vector(pstarts, ANY),
            float_vector(plengths, ANY), kept, uint32_vector(psources, ANY),
        )  # fmt: skip


def earlier(room: tuple) -> tuple[Samples, Array]:
    """Result of an earlier call, checked; raises ValueError where it is something else."""
    good = len(room) == 2 and isinstance(room[0], Samples)
    good = good and getattr(room[1], "dtype", None) == np.uint32
    if not good or room[1].shape != (len(room[0]),):
        raise ValueError(f"room: expected what visible returned, got {shown(room)}")
    return room


count_job = Job(count_on_host, count_on_device)
copy_job = Job(copy_on_host, copy_on_device)


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
    count_job(target, n, samples.ranges, densities, samples.lengths, float(least), counts)
    kept = with_room(target, counts, ranges, total, room)
    sources = zero_integers(target, len(kept)) if sources is None else sources
    copy_job(
        target, n, samples.ranges, samples.positions, samples.starts, samples.lengths, ranges,
        kept.positions, kept.starts, kept.lengths, kept.rays, sources,
    )  # fmt: skip
    return kept, sources
