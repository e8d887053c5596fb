"""Schedules: functions from the number of steps made to the learning rate of the next one.

Any function is one; these are the usual ones. They go to numbanet.fit as `learning_rate`, and are
called with 0 before the first step.
"""

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[int], float]


def cosine(peak: float, n_steps: int, least: float = 0.0) -> Schedule:
    """Half a wave from `peak` down to `least` over n_steps, and `least` from then on.

    Loshchilov and Hutter 2017, without restarts.
    """
    check_steps(n_steps)

    def rate(step: int) -> float:
        progress = min(step / n_steps, 1)
        return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))

    return rate


def warm_up(n_steps: int, then: float | Schedule) -> Schedule:
    """A line from near 0 up to what `then` begins with; `then` counts from the end of it."""
    check_steps(n_steps)
    after = then if callable(then) else lambda step: then

    def rate(step: int) -> float:
        return after(0) * (step + 1) / n_steps if step < n_steps else after(step - n_steps)

    return rate


def piecewise(rates: Mapping[int, float]) -> Schedule:
    """Constant pieces: {0: 1e-2, 500: 1e-3} is 1e-2 for 500 steps, then 1e-3.

    Raises:
        ValueError: there is no rate for step 0.
    """
    pieces = sorted(rates.items(), reverse=True)
    if not pieces or pieces[-1][0] != 0:
        raise ValueError(f"piecewise: {dict(rates)!r:.60} has no rate for step 0, the first")

    def rate(step: int) -> float:
        return next(value for first, value in pieces if first <= step)

    return rate


def exponential(first: float, factor: float, interval: int = 1) -> Schedule:
    """first * factor^(step / interval): a smooth decay by `factor` every `interval` steps."""
    check_steps(interval)
    return lambda step: first * factor ** (step / interval)


def check_steps(n_steps: int) -> None:
    if not n_steps >= 1:
        raise ValueError(f"n_steps: {n_steps!r} is not allowed; use an integer from 1")
