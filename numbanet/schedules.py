"""Learning rate schedules: functions from the number of steps made to the next learning rate.

Any function is one; these are the usual ones. They go to numbanet.fit as `learning_rate`, and are
called with 0 before the first step.
"""

import math
from collections.abc import Callable, Mapping

from numbanet.model_arguments import as_number, check_integer
from numbanet.shown import shown

Schedule = Callable[[int], float]


def cosine(peak: float, n_steps: int, least: float = 0.0) -> Schedule:
    """Half a wave from `peak` down to `least` over n_steps, and `least` from then on.

    Loshchilov and Hutter 2017, without restarts.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    check_integer("n_steps", n_steps, 1)
    peak, least = check_rate("peak", peak), check_rate("least", least)

    def rate(step: int) -> float:
        progress = min(step / n_steps, 1)
        return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))

    return rate


def warm_up(n_steps: int, then: float | Schedule) -> Schedule:
    """A line from near 0 up to what `then` begins with; `then` counts from the end of it.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    check_integer("n_steps", n_steps, 1)
    constant = 0.0 if callable(then) else check_rate("then", then)
    after = then if callable(then) else lambda step: constant

    def rate(step: int) -> float:
        return after(0) * (step + 1) / n_steps if step < n_steps else after(step - n_steps)

    return rate


def piecewise(rates: Mapping[int, float]) -> Schedule:
    """Constant pieces: {0: 1e-2, 500: 1e-3} is 1e-2 for 500 steps, then 1e-3.

    Raises:
        TypeError, ValueError: there is no rate for step 0, or an argument does not fit.
    """
    if not isinstance(rates, Mapping):
        raise TypeError(f"piecewise: expected a dict from steps to rates, got {shown(rates)}")
    steps = [check_integer("piecewise", step, 0) for step in rates]
    values = [check_rate("piecewise", value) for value in rates.values()]
    pieces = sorted(zip(steps, values, strict=True), reverse=True)
    if not pieces or pieces[-1][0] != 0:
        raise ValueError(f"piecewise: {dict(rates)!r:.60} has no rate for step 0, the first")

    def rate(step: int) -> float:
        return next(value for first, value in pieces if first <= step)

    return rate


def exponential(first: float, factor: float, interval: int = 1) -> Schedule:
    """first * factor^(step / interval): a smooth decay by `factor` every `interval` steps.

    Raises:
        TypeError, ValueError: an argument does not fit.
    """
    check_integer("interval", interval, 1)
    first, factor = check_rate("first", first), check_rate("factor", factor)
    return lambda step: first * factor ** (step / interval)


def check_rate(name: str, value: float) -> float:
    """Return the value as a float; raises ValueError unless it is a finite number from 0."""
    rate = as_number(name, value)
    if not 0 <= rate < math.inf:
        raise ValueError(f"{name}: {shown(value)} is not allowed; use a finite number from 0")
    return rate
