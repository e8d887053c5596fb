"""The CPU kernel that fills arrays with pcg32's numbers, the same ones as on other targets."""

import numpy as np

from numbanet.kernel_cache import compile_cached
from numbanet.random import LANES, pcg32_float, pcg32_jump, pcg32_next, pcg32_output


@compile_cached
def fill_uniform(state, y):
    """Fill y [n_draws, n_threads]: thread t takes draws n_draws * t ... of the stream as y[:, t].

    n_threads is a multiple of LANES.
    """
    n_draws, n_threads = y.shape
    a, c = np.empty(LANES + 1, np.uint64), np.empty(LANES + 1, np.uint64)
    for lane in range(LANES + 1):
        a[lane], c[lane] = pcg32_jump(np.uint64(n_draws * lane))
    for first in range(0, n_threads, LANES):
        draw_state = state
        for j in range(n_draws):
            block = y[j, first : first + LANES]
            for lane in range(LANES):
                number = pcg32_output(np.uint64(draw_state * a[lane] + c[lane]))
                block[lane] = pcg32_float(number)
            draw_state = pcg32_next(draw_state)
        state = np.uint64(state * a[LANES] + c[LANES])
