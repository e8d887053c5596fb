"""pcg32, the random numbers of tiny-cuda-nn, draw for draw: the same seed gives the same weights.

PCG-XSH-RR 64/32, M. E. O'Neill 2014: state <- a state + c (mod 2^64), and each draw is a
permutation of the upper bits of the state.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from numbanet.device import device

MULTIPLIER = np.uint64(0x5851F42D4C957F2D)
INCREMENT = np.uint64(3)  # of stream 1
FLOAT_SCALE = np.float32(2.0**-23)
BLOCK = 1 << 13  # threads of NumPy's fill that draw side by side, in the processor's caches
LANES = 16  # threads of a fill in order come in multiples of this, so that loops vectorise
DEVICE_DRAWS = 4  # numbers that a thread of tiny-cuda-nn's device fill draws
DEVICE_BLOCK = 128  # the threads of that fill come in multiples of this


@device
def pcg32_next(state):
    return np.uint64(state * MULTIPLIER + INCREMENT)


@device
def pcg32_output(state):
    shifted = np.uint32(((state >> np.uint64(18)) ^ state) >> np.uint64(27))
    turn = np.uint32(state >> np.uint64(59))
    back = (32 - turn) & 31
    return (shifted >> turn) | (shifted << back)


@device
def pcg32_float(number):  # uniform in [0, 1), 23 bits
    return np.float32(np.int32(number >> 9)) * FLOAT_SCALE


@device
def pcg32_jump(n_draws):
    """(a, c) of the affine map state -> a state + c that skips n_draws, in O(log n_draws)."""
    a, c = MULTIPLIER, INCREMENT
    total_a, total_c = np.uint64(1), np.uint64(0)
    while n_draws > np.uint64(0):
        if n_draws & np.uint64(1):
            total_a, total_c = np.uint64(total_a * a), np.uint64(total_c * a + c)
        a, c = np.uint64(a * a), np.uint64((a + np.uint64(1)) * c)
        n_draws = np.uint64(n_draws >> np.uint64(1))
    return total_a, total_c


@device
def pcg32_advance(state, n_draws):
    a, c = pcg32_jump(n_draws)
    return np.uint64(state * a + c)


@lru_cache(1024)
def jump(n_draws: int) -> tuple[int, int]:
    """Compute what pcg32_jump returns, as Python's integers; nothing is compiled for it."""
    with np.errstate(over="ignore"):
        a, c = pcg32_jump.py_func(np.uint64(n_draws))
    return int(a), int(c)


def host_uniform(state: int, n: int, n_draws: int, n_threads: int) -> np.ndarray:
    """Fill an array by NumPy; see AbstractTarget.uniform.

    Initial values are drawn once, in less time than it takes to compile a kernel for them.
    """
    y = np.empty((n_draws, n_threads), np.float32)
    states = np.array([state], np.uint64)
    while len(states) < min(BLOCK, n_threads):
        states = np.concatenate([states, advanced(states, n_draws * len(states))])
    for first in range(0, n_threads, BLOCK):
        draw_states = states
        for row in y[:, first : first + BLOCK]:
            row[:] = pcg32_float.py_func(pcg32_output.py_func(draw_states[: len(row)]))
            draw_states = pcg32_next.py_func(draw_states)
        states = advanced(states, n_draws * BLOCK)
    return y.reshape(-1)[:n]


def advanced(states: np.ndarray, n_draws: int) -> np.ndarray:
    """States n_draws later."""
    a, c = jump(n_draws)
    return states * np.uint64(a) + np.uint64(c)


class Pcg32:
    """Stream of random numbers, fully described by `state`."""

    def __init__(self, seed: int):
        # in Python: modules make streams when they are imported, and that compiles nothing
        self.state = ((int(INCREMENT) + int(seed)) * int(MULTIPLIER) + int(INCREMENT)) % 2**64

    @classmethod
    def from_state(cls, state: int) -> "Pcg32":
        """Stream that continues from a state."""
        rng = cls(0)
        rng.state = int(state) % 2**64
        return rng

    def advance(self, n_draws: int) -> None:
        """Skip n_draws numbers; a negative count goes back."""
        a, c = jump(int(n_draws) % 2**64)
        self.state = (self.state * a + c) % 2**64

    def next_uint(self) -> int:
        """The next draw, in [0, 2^32)."""
        number = int(pcg32_output.py_func(np.uint64(self.state)))
        self.advance(1)
        return number

    def next_float(self) -> float:
        """Next draw as a number in [0, 1) with 23 bits."""
        return float(self.uniform(1)[0])

    def uniform(self, n: int, target: Any = None) -> Any:
        """Next n draws in [0, 1), in order: float32 [n] on a target, by default the CPU."""
        return self._fill(n, 1, -(-n // LANES) * LANES, target)

    def device_uniform(self, n: int, target: Any = None) -> Any:
        """Next n draws in [0, 1) in the order of tiny-cuda-nn's device fill: float32 [n].

        Four consecutive draws land a quarter of the array apart, and the stream advances by n even
        where n is not a multiple of the number of threads. The numbers do not depend on the target.
        """
        n_blocks = -(-n // (DEVICE_DRAWS * DEVICE_BLOCK))
        return self._fill(n, DEVICE_DRAWS, n_blocks * DEVICE_BLOCK, target)

    def _fill(self, n, n_draws, n_threads, target):
        fill = host_uniform if target is None else target.uniform
        y = fill(self.state, n, n_draws, n_threads)
        self.advance(n)
        return y


def seed_sequence(seed: int) -> int:
    """First of the two words that C++'s std::seed_seq{seed} generates.

    tiny-cuda-nn's Trainer seeds its stream with it, its PyTorch bindings with the seed itself.
    """
    word_a, word_b = 0x8B8B8B8B, 0x8B8B8B8B
    mask = 2**32 - 1

    def mix(x):
        return x ^ x >> 27

    # [rand.util.seedseq] for one seed and two words, its loops written out.
    for added in (1, int(seed) + 1):
        first = 1664525 * mix(word_a ^ word_b ^ word_b) & mask
        second = first + added & mask
        word_a, word_b = word_b + first + second & mask, second
    for added in (0, 1):
        first = 1566083941 * mix(word_a + word_b + word_b & mask) & mask
        second = first - added & mask
        word_a, word_b = word_b ^ first ^ second, second
    return word_a
