"""CUDA kernels of an optimizer's step, which the host queues without knowing whether it will run.

What a step decides on lies in device memory: `control` has the number of steps made and of steps
skipped, whether something was not finite, whether this step runs, and how many results were
written. So nothing is read back, and the kernels can be captured in a CUDA graph.
"""

from functools import cache

import numpy as np

from numbanet.cuda.threads import (
    WARP,
    block_index,
    block_index_y,
    n_threads,
    thread_index,
    thread_number,
    warp_sum,
)
from numbanet.device import ZERO, device, float_bits
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.storage.access import store
from numbanet.storage.views import VECTORS, float_matrix, float_vector, uint32_vector

# Numbers in `control`, uint32.
N_STEPS, N_SKIPPED, NOT_FINITE, RUNS, N_RESULTS = (np.uint32(k) for k in range(5))
N_CONTROL = 8
HISTORY = 4096  # results that are kept, each the bits of a loss and whether the step was skipped

CHECK = ("uint64", "uint32", "uint64")
FINISH = (
    *("uint64", "uint32", "float32", "uint64", "uint64"),
    *("uint64", "uint64", "uint32"),
)
SUMMANDS = ("uint64",) * 6
MATRIX_STEP = ("uint64",) * 4
OPTIMIZE = (*("uint64",) * 7, "uint32")

EXPONENT = np.uint32(0x7F800000)  # all ones for infinity and NaN
NOTHING, BIT = np.uint32(0), np.uint32(1)
SUM_LANES = np.uint32(1024)  # threads that add up a matrix, whatever its size


@device
def is_not_finite(bits):  # fast-math would drop a test on floats
    return np.uint32(bits & EXPONENT) == EXPONENT


def check_finite(px, n, pcontrol):
    """Note in `control` if one of n float32 is infinite or NaN."""
    bits, control = uint32_vector(px, n), uint32_vector(pcontrol, N_CONTROL)
    i, found = thread_number(), False
    while i < n:
        found |= is_not_finite(bits[i])
        i = np.uint32(i + n_threads())
    if found:
        control[NOT_FINITE] = BIT


@cache
def finish_kernel(optimizer: AbstractOptimizer):
    """(partial_sums, n_sums, factor, control, history, hyperparams, scalars, wants_step).

    One warp adds up the loss, writes it to the history, and decides whether the step runs; for one
    that does, it counts it and computes its scalars.
    """
    schedule = optimizer.schedule
    n_hyperparams, n_scalars = optimizer.n_hyperparams, optimizer.n_scalars

    def finish_step(psums, n_sums, factor, pcontrol, phistory, phyperparams, pscalars, wants_step):
        sums, control = float_vector(psums, n_sums), uint32_vector(pcontrol, N_CONTROL)
        history = uint32_vector(phistory, 2 * HISTORY)
        hyperparams = float_vector(phyperparams, n_hyperparams)
        scalars = float_vector(pscalars, n_scalars)
        k, total = thread_index(), ZERO
        while k < n_sums:
            total += sums[k]
            k = np.uint32(k + np.uint32(WARP))
        loss = float_bits(warp_sum(total) * factor)
        if thread_index() == NOTHING:
            bad = is_not_finite(loss) | (control[NOT_FINITE] != NOTHING)
            skipped, runs = NOTHING, NOTHING
            if wants_step != NOTHING:
                if bad:
                    skipped = BIT
                    control[N_SKIPPED] = np.uint32(control[N_SKIPPED] + BIT)
                else:
                    runs = BIT
                    t = np.uint32(control[N_STEPS] + BIT)
                    control[N_STEPS] = t
                    schedule(np.int32(t), hyperparams, scalars)
            control[RUNS], control[NOT_FINITE] = runs, NOTHING
            serial = control[N_RESULTS]
            place = np.uint32(serial % np.uint32(HISTORY) * np.uint32(2))
            history[place], history[np.uint32(place + BIT)] = loss, skipped
            control[N_RESULTS] = np.uint32(serial + BIT)

    return finish_step


@cache
def range_of_matrix(optimizer: AbstractOptimizer, layout: ParamLayout):
    """Device function m -> the first parameter of matrix m, and the end."""
    ranges = tuple(
        (np.uint32(start), np.uint32(stop)) for start, stop in optimizer.matrix_ranges(layout)
    )

    @device
    def range_of_matrix(m):
        return ranges[m]

    return range_of_matrix


@cache
def summands_kernel(optimizer: AbstractOptimizer, layout: ParamLayout):
    """(weights, gradients, state, scalars, partial_sums, control); SUM_LANES threads per matrix.

    Block y is a matrix; each warp of it writes a partial sum.
    """
    summand, range_of = optimizer.summand(layout), range_of_matrix(optimizer, layout)
    n, n_state, n_scalars = layout.n_params, optimizer.n_state, optimizer.n_scalars

    def matrix_summands(pweights, pgradients, pstate, pscalars, psums, pcontrol):
        weights, gradients = float_vector(pweights, n), float_vector(pgradients, n)
        state, scalars = float_matrix(pstate, n_state, n), float_vector(pscalars, n_scalars)
        sums, control = float_vector(psums, n), uint32_vector(pcontrol, N_CONTROL)
        if control[RUNS] == NOTHING:
            return
        m = block_index_y()
        first, end = range_of(m)
        i, total = np.uint32(first + thread_number()), ZERO
        while i < end:
            total += summand(i, weights[i], gradients[i], state, scalars)
            i = np.uint32(i + SUM_LANES)
        total = warp_sum(total)
        if np.uint32(thread_index() % np.uint32(WARP)) == NOTHING:
            lane = np.uint32(m * SUM_LANES + thread_number())
            sums[np.uint32(lane // np.uint32(WARP))] = total

    return matrix_summands


@cache
def matrix_step_kernel(optimizer: AbstractOptimizer, layout: ParamLayout):
    """(partial_sums, matrices, scalars, control); a block of one warp for each matrix."""
    step = optimizer.matrix_step(layout)
    n_state, n_matrices, n_scalars = (
        optimizer.n_matrix_state, len(optimizer.matrix_ranges(layout)), optimizer.n_scalars,
    )  # fmt: skip

    def matrix_step(psums, pmatrices, pscalars, pcontrol):
        sums = float_vector(psums, n_matrices)
        matrices = float_matrix(pmatrices, n_state, n_matrices)
        scalars, control = float_vector(pscalars, n_scalars), uint32_vector(pcontrol, N_CONTROL)
        if control[RUNS] == NOTHING:
            return
        m, lane = block_index(), thread_index()
        total = warp_sum(sums[np.uint32(m * (SUM_LANES // np.uint32(WARP)) + lane)])
        if lane == NOTHING:
            step(m, total, matrices, scalars)

    return matrix_step


@cache
def optimize_kernel(optimizer: AbstractOptimizer, layout: ParamLayout, precision: str):
    """(weights, gradients, state, scalars, matrices, copy, control, n): step every parameter.

    Writes the copy that the other kernels read, unless they read the weights. Where the step does
    not run, the gradients are zeroed.
    """
    step = optimizer.step(layout)
    n_state, n_matrix_state, n_matrices, n_scalars = (
        optimizer.n_state, optimizer.n_matrix_state, len(optimizer.matrix_ranges(layout)),
        optimizer.n_scalars,
    )  # fmt: skip
    vector, has_copy = VECTORS[precision], precision != "float32"

    def optimize(pweights, pgradients, pstate, pscalars, pmatrices, pcopy, pcontrol, n):
        weights, gradients = float_vector(pweights, n), float_vector(pgradients, n)
        state, scalars = float_matrix(pstate, n_state, n), float_vector(pscalars, n_scalars)
        matrices = float_matrix(pmatrices, n_matrix_state, n_matrices)
        copy, control = vector(pcopy, n), uint32_vector(pcontrol, N_CONTROL)
        i = thread_number()
        if i < n:
            if control[RUNS] != NOTHING:
                w = step(i, weights[i], gradients[i], state, scalars, matrices)
                weights[i] = w
                if has_copy:
                    store(copy, i, w)
            else:
                gradients[i] = ZERO

    name = type(optimizer).__name__
    optimize.__qualname__ = f"{name}.step.<locals>.{name}_optimize"
    return optimize
