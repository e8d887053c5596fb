"""Limits of an optimizer's state: training stays within them, and loaded states have to.

Beyond them, the next steps may overflow, or make NaN.
"""

import math
from collections.abc import Iterator

import numpy as np

Limit = tuple[str, np.ndarray, float, float]  # description, numbers, the least, the largest

MOST_WEIGHT = 2.0**125  # three of these can be added
MOST_MOMENT = 2.0**101
MOST_DIRECTION = 2.0**37  # of m / sqrt(v), which grows where the square of a gradient is 0


def limits_of_moments(m: np.ndarray, v: np.ndarray, epsilon: float) -> Iterator[Limit]:
    """Limits of averages of gradients and of their squares; see AbstractOptimizer.limits."""
    yield "second moments", v, 0, math.inf
    yield "first moments", m, -MOST_MOMENT, MOST_MOMENT
    most = np.float32(MOST_DIRECTION) * (np.sqrt(v) + np.float32(min(epsilon, 1)))
    yield "first moments, without their square roots of second ones,", abs(m) - most, -math.inf, 0
