"""The inverse fourth root of a covariance, by products only.

A coupled Newton iteration (Guo and Higham 2006): with M = c A and X = c^(1/4) I at first,
T = (5 I - M) / 4, X <- X T, M <- T^4 M. M goes to I while X^4 A = M, so X goes to A^(-1/4).
"""

import functools
import math

import numpy as np

from numbanet.device import ZERO, device, float_bits, select

# Small eigenvalues of M grow by (5/4)^4 per iteration: enough for a condition of 10^8, and then
# quadratic convergence. A converged M stays where it is.
N_ITERATIONS = 30

SQRT2 = np.float32(math.sqrt(2))
QUARTER, FIVE_QUARTERS = np.float32(0.25), np.float32(1.25)
ZERO_BITS = np.uint32(0)
INFINITY = np.uint32(0x7F800000)  # the bits of float32 numbers below are those of finite ones


def inverse_fourth_root(operations, covariance, root, identity: float) -> None:
    """Overwrite root; where the iteration overflows, leave it as it is."""
    shape = covariance.shape
    a, m, next_m, x, next_x, t, t2, t4 = (operations.empty(shape) for _ in range(8))
    norm = operations.empty((1, 1))
    operations.apply(damped(identity), a, covariance)
    operations.norm_squared(a, norm)
    operations.apply(first_guess, m, x, a, norm)
    for _ in range(N_ITERATIONS):
        operations.apply(newton_factor, t, m)
        operations.product(x, t, next_x)
        operations.product(t, t, t2)
        operations.product(t2, t2, t4)
        operations.product(t4, m, next_m)
        x, next_x, m, next_m = next_x, x, next_m, m
    operations.norm_squared(x, norm)
    operations.apply(keep_if_finite, root, x, norm)


@functools.cache
def damped(identity: float):
    share, rest = np.float32(identity), np.float32((1 - identity) / 2)

    @device
    def damped(i, j, a, covariance):
        symmetric = rest * (covariance[i, j] + covariance[j, i])
        a[i, j] = symmetric + select(i == j, share, ZERO)

    return damped


@device
def first_guess(i, j, m, x, a, norm):
    scale = SQRT2 / math.sqrt(norm[0, 0])  # which puts all eigenvalues into (0, sqrt 2]
    m[i, j] = scale * a[i, j]
    x[i, j] = select(i == j, math.sqrt(math.sqrt(scale)), ZERO)


@device
def newton_factor(i, j, t, m):
    t[i, j] = select(i == j, FIVE_QUARTERS, ZERO) - QUARTER * m[i, j]


@device
def keep_if_finite(i, j, root, x, norm):
    bits = float_bits(norm[0, 0])
    root[i, j] = select((bits > ZERO_BITS) & (bits < INFINITY), x[i, j], root[i, j])
