"""Noise on outputs, on the CPU."""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.losses.perturbation import perturb_row
from numbanet.random import Pcg32


@cache
def perturb_kernel(n_outputs: int) -> ParallelKernel:
    """(state, sigma, y, to): write outputs plus noise; arrays are 1-D."""

    def perturb(state, sigma, y, to):
        for i in prange(y.shape[0] // n_outputs):
            perturb_row(i, n_outputs, state, sigma, y, to)

    return ParallelKernel(perturb)


class Noise:
    """See AbstractNoise."""

    def __init__(self, state: int):
        self.state = state

    def perturb(self, sigma, y, to):
        rng = Pcg32.from_state(self.state)
        if y.size:
            given = np.uint64(self.state), np.float32(sigma), y.reshape(-1), to.reshape(-1)
            perturb_kernel(y.shape[1])(*given)
        rng.advance(y.size)
        self.state = rng.state
