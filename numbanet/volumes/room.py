"""Memory for samples: of the size they need, or of a given capacity."""

import math
from typing import Any

import numpy as np

from numbanet.shown import shown
from numbanet.target import AbstractTarget
from numbanet.volumes.launch import integers, zero_integers
from numbanet.volumes.packing import pack
from numbanet.volumes.samples import Samples

MOST_SAMPLES = (1 << 31) - 1
LARGEST = 1e30  # of numbers that kernels take; larger ones count as this
NUMBERS = int, float, np.integer, np.floating


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Return the value as an int; raises ValueError unless it is a whole number in this range."""
    is_whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_whole and least <= value <= most):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use {least} to {most}")
    return int(value)


def amount(name: str, value: Any) -> float:
    """Return a number from 0 as a float32 can hold it; raises ValueError if it is anything else."""
    if not (isinstance(value, NUMBERS) and 0 <= value < math.inf):
        raise ValueError(f"{name}: {shown(value)} is not allowed; use a number from 0")
    return bounded(value)


def bounded(value: Any) -> float:
    """Return a number as a float, at most LARGEST."""
    return float(min(value if isinstance(value, int) else float(value), LARGEST))


def check_least(least: Any) -> None:
    """Raise ValueError unless this is a valid fraction of the light."""
    if not (isinstance(least, NUMBERS) and 0 <= least < 1):
        raise ValueError(f"least: {shown(least)} is not allowed; use a number from 0 to below 1")


def empty_samples(target: AbstractTarget) -> Samples:
    """Samples of no rays."""
    none, rays, ranges = target.empty(0), integers(target, 0), integers(target, 0, 2)
    return Samples(target.empty(0, 3), none, none, rays, ranges, zero_integers(target, 2), target)


def with_room(
    target: AbstractTarget, counts: Any, ranges: Any, total: Any, room: int | Samples | None
) -> Samples:
    """Arrays for the rays' numbers of samples; `ranges` and `total` are written.

    Raises:
        ValueError: room is not allowed, or there is none and there are more than MOST_SAMPLES.
    """
    if isinstance(room, Samples):
        if room.target is not target:
            raise ValueError(f"room: its arrays are on {room.target.name}, not on {target.name}")
        capacity = len(room)
    else:
        capacity = MOST_SAMPLES if room is None else whole("room", room, 0, MOST_SAMPLES)
    pack(target, counts, capacity, ranges, total)
    if isinstance(room, Samples):
        return Samples(room.positions, room.starts, room.lengths, room.rays, ranges, total, target)
    if room is None:
        capacity, wanted = map(int, target.to_host(total))
        if wanted > MOST_SAMPLES:
            raise ValueError(
                f"rays have more than {MOST_SAMPLES} samples; use fewer rays, longer steps, or room"
            )
    return Samples(
        target.zeros(capacity, 3), target.zeros(capacity), target.zeros(capacity),
        zero_integers(target, capacity), ranges, total, target,
    )  # fmt: skip
