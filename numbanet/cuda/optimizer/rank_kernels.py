"""CUDA kernels for a step of several ranks: their votes, and the decision.

Each rank has a row of votes, and zeros in the rows of the others, so that the sum over the ranks is
what all of them say. It travels with the gradients. A loss is the mean of as many samples as all
ranks had at an earlier step; where they have others now, sums are weighted when that is known.
"""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import (
    WARP,
    block_index,
    n_threads,
    thread_index,
    thread_number,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.loss_sums import sum_of
from numbanet.cuda.optimizer.kernels import (
    HISTORY,
    INFINITY,
    N_CONTROL,
    NOT_FINITE,
    NOTHING,
    OTHER_CALL,
    RUNS,
    arrive,
    conclude,
    has_beyond,
    is_beyond,
)
from numbanet.device import ONE, ZERO, device, float_bits, float_from_bits
from numbanet.optimizers.base import AbstractOptimizer
from numbanet.storage.views import float_vector, uint32_vector

# A rank's votes, float32: its part of the loss; infinity if it found something that is not finite,
# else 0; its samples; and a number for its options.
LOSS, BAD, SAMPLES, OPTIONS = (np.uint32(k) for k in range(4))
N_VOTES = 4
MOST_BLOCKS = 264  # of kernels that rarely have work: two for each multiprocessor of an H200
TWO, THREE, FOUR = (np.uint32(k) for k in (2, 3, 4))
LARGEST_OPTIONS = 1 << 24  # a float32 holds the integers below


@cache
def vote_kernel(least_bad_gradient: float):
    """(gradients, n_gradients, others, n_others, partial_sums, n_sums, factor, control, votes,
    rank, n_ranks, samples, options): write all rows of votes.

    `options` is the address of their number.
    """
    least_bad = np.float32(least_bad_gradient).view(np.uint32)

    def vote(
        pgradients: Address, n_gradients: UInt, pothers: Address, n_others: UInt, psums: Address,
        n_sums: UInt, factor: Float, pcontrol: Address, pvotes: Address, rank: UInt,
        n_ranks: UInt, samples: Float, poptions: Address,
    ):  # fmt: skip
        control = uint32_vector(pcontrol, N_CONTROL)
        bad = has_beyond(least_bad, pgradients, n_gradients)
        bad |= has_beyond(least_bad, pothers, n_others)
        is_last, bad = arrive(bad, control)
        if not is_last or thread_index() >= WARP:
            return
        loss, lane = sum_of(float_vector(psums, n_sums), n_sums) * factor, thread_index()
        votes = float_vector(pvotes, n_ranks * N_VOTES)
        k = lane
        while k < n_ranks * N_VOTES:
            value, which = ZERO, k % N_VOTES
            if k // N_VOTES == rank:
                if which == LOSS:
                    value = loss
                elif which == BAD:
                    value = float_from_bits(INFINITY if bad else NOTHING)
                elif which == SAMPLES:
                    value = samples
                else:
                    value = float_vector(poptions, 1)[NOTHING]
            votes[k] = value
            k += WARP

    return vote


@device
def weigh(factor, address, n):  # of n float32, by all threads; four at a time, to hide latency
    values, i, step = float_vector(address, n), thread_number(), n_threads()
    two, three = np.uint32(TWO * step), np.uint32(THREE * step)
    while i + three < n:
        j, k, m = np.uint32(i + step), np.uint32(i + two), np.uint32(i + three)
        a, b, c, d = values[i], values[j], values[k], values[m]
        values[i] = factor * a
        values[j] = factor * b
        values[k] = factor * c
        values[m] = factor * d
        i += FOUR * step
    while i < n:
        values[i] *= factor
        i += step


@device
def factor_of(votes, n_ranks, nominal):
    """Factor of sums that are parts of a mean over `nominal` samples; 0 is exact."""
    total, k = ZERO, NOTHING
    while k < n_ranks:
        total += votes[k * N_VOTES + SAMPLES]
        k += np.uint32(1)
    is_weighted = nominal != ZERO and total != ZERO and total != nominal
    return nominal / total if is_weighted else ONE


@cache
def finish_kernel(optimizer: AbstractOptimizer):
    """(votes, n_ranks, nominal, is_external, gradients, n_gradients, sums, n_sums, dl_dinput,
    n_dinput, control, history, hyperparams, scalars, wants_step): as kernels.finish_kernel, after
    the sum over all ranks.

    The own gradients, the sums and the gradients of the inputs are weighted, if the ranks have
    others than `nominal` samples together, unless they are those of external_dl_dy. If they have
    none, the step does not run.
    """
    n_hyperparams, n_scalars = optimizer.n_hyperparams, optimizer.n_scalars
    end = conclude(optimizer)

    def finish_of_ranks(
        pvotes: Address, n_ranks: UInt, nominal: Float, is_external: UInt, pgradients: Address,
        n_gradients: UInt, psums: Address, n_sums: UInt, pdinput: Address, n_dinput: UInt,
        pcontrol: Address, phistory: Address, phyperparams: Address, pscalars: Address,
        wants_step: UInt,
    ):  # fmt: skip
        votes = float_vector(pvotes, n_ranks * N_VOTES)
        factor = factor_of(votes, n_ranks, nominal)
        if factor != ONE and is_external == NOTHING:
            weigh(factor, pgradients, n_gradients)
            weigh(factor, psums, n_sums)
            weigh(factor, pdinput, n_dinput)
        if block_index() != NOTHING or thread_index() != NOTHING:
            return
        loss, samples, why, k = ZERO, ZERO, NOTHING, NOTHING
        while k < n_ranks:
            row = k * N_VOTES
            loss += votes[row + LOSS]
            samples += votes[row + SAMPLES]
            if is_beyond(INFINITY, float_bits(votes[row + BAD])):
                why = NOT_FINITE
            k += np.uint32(1)
        bits = float_bits(factor * loss)
        if is_beyond(INFINITY, bits):
            why = NOT_FINITE
        k = NOTHING
        while k < n_ranks:
            if votes[k * N_VOTES + OPTIONS] != votes[OPTIONS]:
                why = OTHER_CALL
            k += np.uint32(1)
        wants = wants_step
        if nominal != ZERO and samples == ZERO:
            wants = NOTHING
        end(
            bits, why, wants, uint32_vector(pcontrol, N_CONTROL),
            uint32_vector(phistory, 2 * HISTORY), float_vector(phyperparams, n_hyperparams),
            float_vector(pscalars, n_scalars),
        )  # fmt: skip

    return finish_of_ranks


def clear_skipped(pgradients: Address, n: UInt, pcontrol: Address):
    """(gradients, n, control): zero them, if the step does not count."""
    i = thread_number()
    if uint32_vector(pcontrol, N_CONTROL)[RUNS] == NOTHING:
        while i < n:
            uint32_vector(pgradients, n)[i] = NOTHING
            i += n_threads()
