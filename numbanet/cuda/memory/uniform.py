"""CUDA kernel that fills arrays with pcg32's numbers, the same ones as on the CPU."""

import numpy as np

from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, UInt, UInt64
from numbanet.random import pcg32_advance, pcg32_float, pcg32_next, pcg32_output
from numbanet.storage.views import float_vector


def fill_uniform(py: Address, n: UInt64, state: UInt64, n_draws: UInt, n_threads: UInt):
    """Fill y [n]; see AbstractTarget.uniform."""
    y, t = float_vector(py, n), thread_number()
    if t < n_threads:
        draw_state = pcg32_advance(state, np.uint64(n_draws) * np.uint64(t))
        for j in range(n_draws):
            i = np.uint64(np.uint64(t) + np.uint64(j) * np.uint64(n_threads))
            if i < n:
                y[i] = pcg32_float(pcg32_output(draw_state))
            draw_state = pcg32_next(draw_state)
