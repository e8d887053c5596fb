"""Random numbers of stochastic interpolation: draw number `level * n + i` for sample i of n."""

from functools import cache

import numpy as np

from numbanet.device import ZERO, device
from numbanet.random import INCREMENT, MULTIPLIER, Pcg32, pcg32_advance, pcg32_float, pcg32_output

SEEDED = np.uint64(Pcg32(1337).state)


@device
def state_of(level, i, n):  # of the generator, before the draw
    number = np.uint64(np.uint64(level) * np.uint64(n) + np.uint64(i))
    return pcg32_advance(SEEDED, number)


@device
def uniform(state):  # in [0, 1)
    return pcg32_float(pcg32_output(state))


@cache
def draws(is_random: bool, stride: int, n: int):
    """Device functions (level, i, n_all) -> state, (state, k) -> that of sample i + k stride, for
    k < n that is known at compile time, and state -> u.

    They do nothing where nothing is random.
    """
    maps = [(1, 0)]
    for _ in range(stride * (n - 1)):
        a, c = maps[-1]
        a, c = a * int(MULTIPLIER), c * int(MULTIPLIER) + int(INCREMENT)
        maps.append((a % 2**64, c % 2**64))
    factors, terms = (tuple(map(np.uint64, each)) for each in zip(*maps[::stride], strict=True))

    @device
    def begin(level, i, n_all):
        return state_of(level, i, n_all) if is_random else np.uint64(0)

    @device
    def skip(state, k):
        return np.uint64(state * factors[k] + terms[k]) if is_random else state

    @device
    def draw(state):
        return uniform(state) if is_random else ZERO

    return begin, skip, draw
