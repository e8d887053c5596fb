"""CPU kernels for a step of an optimizer, and for the decision whether it is made."""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.device import belongs_to, device, local_array
from numbanet.kernel_cache import compile_cached
from numbanet.storage.views import columns_from

MAGNITUDE = np.int32(0x7FFFFFFF)


@device
def count_beyond(bits, limit):
    n = 0
    for i in range(bits.shape[0]):
        n += (bits[i] & MAGNITUDE) >= limit
    return n


@compile_cached
def n_beyond(bits, limit):
    """Number of float32 that are NaN or at least `limit` in magnitude; both are given as int32.

    Fast-math would drop a test on floats. One thread reads faster than a second one wakes up.
    """
    return count_beyond(bits, limit)


@cache
def optimizer_kernel(optimizer, layout, prepares=True, steps=True) -> ParallelKernel:
    """Kernel for a step on every parameter, or for the half of it before or after `precondition`.

    (t, weights, gradients, state, matrices, hyperparams, scalars, begin, chunk): the state is that
    of the weights from `begin` on, which are stepped. With sums over matrices these are all.
    """
    n_state = optimizer.n_state
    n_scalars, has_sums = optimizer.n_scalars, prepares and optimizer.n_matrix_state > 0
    schedule, step = optimizer.schedule, optimizer.step(layout)
    summand, matrix_step = optimizer.summand(layout), optimizer.matrix_step(layout)
    ranges = optimizer.matrix_ranges(layout) if has_sums else ((0, 0),)
    n_matrices = len(ranges)

    @device
    def step_each(first, last, weights, gradients, state, scalars, matrices):
        own = local_array(n_scalars)  # which no store to the other arrays can change
        for k in range(n_scalars):
            own[k] = scalars[k]
        for i in range(first, last):
            u = np.uintp(i)
            weights[u] = step(u, weights[u], gradients[u], state, own, matrices)

    @belongs_to(f"{type(optimizer).__name__}.step")
    def optimize(t, weights, gradients, state, matrices, hyperparams, scalars, begin, chunk):
        if prepares:
            schedule(t, hyperparams, scalars)
        if has_sums:
            for m in range(n_matrices):
                first, last = ranges[m]
                sums = np.empty((last - first + chunk - 1) // chunk, np.float32)
                for c in prange(sums.shape[0]):
                    total = np.float32(0)
                    start = first + c * chunk
                    for i in range(start, min(last, start + chunk)):
                        u = np.uintp(i)  # an unsigned index is not tested for counting from the end
                        total += summand(u, weights[u], gradients[u], state, scalars)
                    sums[c] = total
                matrix_step(m, np.float32(sums.astype(np.float64).sum()), matrices, scalars)
        if steps:
            n, flat = state.shape[1], state.reshape(-1)
            for c in prange((n + chunk - 1) // chunk):
                mine = columns_from(flat, np.uint64(begin), n_state, n)
                first, last = begin + c * chunk, begin + min(n, (c + 1) * chunk)
                step_each(first, last, weights, gradients, mine, scalars, matrices)

    return ParallelKernel(optimize)
