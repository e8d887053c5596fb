"""Piecewise: a factor of the learning rate along straight lines between points.

A point is a pair [s, factor]: the factor after s steps. It is constant before the first point and
from the last one on. Two points with the same s are a jump, after which the second one holds.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from numbanet.device import ONE, device, select
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.optimizers.schedule import AbstractSchedule
from numbanet.optimizers.wrapper import NESTED
from numbanet.registry import ConfigError, check, is_number, register
from numbanet.shown import shown

MOST_POINTS = 64
A_STEP = "a step from 0 to 2^31 - 1, none before that of the point before"


def create_points(value: Any, path: str) -> tuple[tuple[int, float], ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path}: expected a list of pairs [step, factor], got {shown(value)}")
    points = []
    for k, pair in enumerate(value):
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(is_number, pair))
        if not is_pair or not all(map(math.isfinite, pair)) or pair[0] != int(pair[0]):
            numbers = "an integer and a finite number"
            raise ConfigError(
                f"{path}[{k}]: expected a pair [step, factor], got {shown(pair)}; use {numbers}"
            )
        points.append((int(pair[0]), float(pair[1])))
    return tuple(points)


POINTS = {
    "convert": create_points,
    "shown": "list of [step, factor]",
    "items": {"type": "array", "items": {"type": "number", "minimum": 0},
              "minItems": 2, "maxItems": 2},
}  # fmt: skip


@register("optimizer", "Piecewise")
@dataclass(frozen=True)
class Piecewise(AbstractSchedule):
    points: tuple[tuple[int, float], ...] = field(default=((0, 1.0),), metadata=POINTS)
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    def __post_init__(self):
        n = len(self.points)
        check(1 <= n <= MOST_POINTS, "points", f"a list of {n}", f"1 to {MOST_POINTS} points")
        for k, (step, factor) in enumerate(self.points):
            check(0 <= step < 2**31, f"points[{k}]", step, A_STEP)
            allowed = "a factor from 0, below 2^64"
            check(0 <= factor < 2.0**64, f"points[{k}]", factor, allowed)
        for k, ((before, _), (after, _)) in enumerate(pairwise(self.points), 1):
            check(before <= after, f"points[{k}]", after, A_STEP)

    @property
    def own_hyperparams(self):
        steps, factors = zip(*self.points, strict=True)
        return *steps, *factors

    @property
    def largest_factor(self):
        return max(factor for _, factor in self.points)

    @cached_property
    def factor(self):
        n = len(self.points)

        @device
        def piecewise(n_done, numbers):  # steps, then factors
            s, value = np.float32(n_done), numbers[n]
            for k in range(1, n):
                before, after = numbers[k - 1], numbers[k]
                low, high = numbers[n + k - 1], numbers[n + k]
                u = (s - before) / max(after - before, ONE)
                between = select(s >= after, high, low + u * (high - low))
                value = select(s >= before, between, value)
            return value

        return piecewise

    def kernel_key(self):
        points = ((0, 1.0),) * len(self.points)
        return Piecewise(points=points, nested=self.nested.kernel_key())
