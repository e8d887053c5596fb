"""CUDA kernels of a step that several ranks make together: what each has to say about it."""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import WARP, thread_index, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.loss_sums import sum_of
from numbanet.cuda.optimizer.kernels import (
    INFINITY,
    N_CONTROL,
    NOTHING,
    RUNS,
    arrive,
    has_beyond,
)
from numbanet.storage.views import float_vector, uint32_vector

N_VOTES = 2  # numbers that a rank adds to a step


@cache
def vote_kernel(least_bad_gradient: float):
    """(gradients, n_gradients, others, n_others, partial_sums, n_sums, factor, control, votes):
    what a rank adds to the step of all.

    That is its part of the loss, and infinity if something is not finite, else 0.
    """
    least_bad = np.float32(least_bad_gradient).view(np.uint32)

    def vote(
        pgradients: Address, n_gradients: UInt, pothers: Address, n_others: UInt, psums: Address,
        n_sums: UInt, factor: Float, pcontrol: Address, pvotes: Address,
    ):  # fmt: skip
        control, votes = uint32_vector(pcontrol, N_CONTROL), float_vector(pvotes, N_VOTES)
        bad = has_beyond(least_bad, pgradients, n_gradients)
        bad |= has_beyond(least_bad, pothers, n_others)
        is_last, bad = arrive(bad, control)
        if not is_last or thread_index() >= WARP:
            return
        loss = sum_of(float_vector(psums, n_sums), n_sums) * factor
        if thread_index() == NOTHING:
            votes[0] = loss
            uint32_vector(pvotes, N_VOTES)[1] = INFINITY if bad else NOTHING

    return vote


def clear_skipped(pgradients: Address, n: UInt, pcontrol: Address):
    """(gradients, n, control): zero them, if the step does not count."""
    i = thread_number()
    if i < n and uint32_vector(pcontrol, N_CONTROL)[RUNS] == NOTHING:
        uint32_vector(pgradients, n)[i] = NOTHING
