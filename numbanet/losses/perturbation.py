"""Perturbation of outputs before their loss, as of tiny-cuda-nn's Trainer: logistic noise.

A draw u of pcg32, uniform in (0, 1), becomes sqrt(3)/pi ln(u / (1 - u)): mean 0, deviation 1.
"""

import math

import numpy as np

from numbanet.device import ONE, device, log
from numbanet.random import pcg32_advance, pcg32_float, pcg32_next, pcg32_output

LEAST = np.float32(2.0**-24)  # of u; draws are multiples of 2^-23, and 0 is one of them
TO_DEVIATION = np.float32(math.sqrt(3) / math.pi)


@device
def logistic(u):
    u = max(u, LEAST)
    return TO_DEVIATION * (log(u) - log(ONE - u))


@device
def perturb_row(i, n, state, sigma, y, to):  # row i of n outputs, with draws from i n on
    first = np.uint64(np.uint64(i) * np.uint64(n))
    state = pcg32_advance(state, first)
    for k in range(n):
        place = first + np.uint64(k)
        to[place] = y[place] + sigma * logistic(pcg32_float(pcg32_output(state)))
        state = pcg32_next(state)
