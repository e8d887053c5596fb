"""CUDA kernels of an optimizer's step, queued before the host knows whether it will run.

What a step decides on lies in device memory: `control` has the number of steps made and of steps
skipped, the blocks that looked for infinities and NaN, whether this step runs, and how many results
were written. So nothing is read back, and the kernels can be captured in a CUDA graph.
"""

from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import (
    WARP,
    barrier_or,
    block_index,
    block_index_y,
    blocks_per_grid,
    n_threads,
    thread_index,
    thread_number,
    warp_sum,
)
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.memory.loss_sums import AT_ONCE, sum_of
from numbanet.cuda.optimizer.parameter_groups import clear_group, group_size, step_group
from numbanet.device import ZERO, device, float_bits
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.storage.memory_access import add_to_word
from numbanet.storage.views import float_matrix, float_vector, uint32_vector

# Numbers in `control`, uint32.
N_STEPS, N_SKIPPED, ARRIVED, RUNS, N_RESULTS = (np.uint32(k) for k in range(5))
N_CONTROL = 8
HISTORY = 4096  # results that are kept, each the bits of a loss and why the step was skipped, or 0
NOT_FINITE, OTHER_CALL = np.uint32(1), np.uint32(2)  # why: also since ranks make other calls

MOST_CHECKED = 2  # pieces of memory in which infinities are looked for

MAGNITUDE, INFINITY = 0x7FFFFFFF, np.uint32(0x7F800000)  # of the bits of a float32
NOTHING, BIT = np.uint32(0), np.uint32(1)
FOUND = np.uint32(1 << 16)  # in ARRIVED: below are blocks that came, above are those that found
MOST_BLOCKS = 1024  # of finish_step
SUM_LANES = np.uint32(1024)  # threads that add up a matrix, whatever its size


@device
def is_beyond(limit, bits):  # or NaN; fast-math would drop a test on floats
    return (bits & MAGNITUDE) >= limit


@device
def has_beyond(limit, address, n):  # a thread's part of n float32
    bits, i, found, step = uint32_vector(address, n), thread_number(), False, n_threads()
    while i < n:
        for _ in range(AT_ONCE):
            found |= is_beyond(limit, bits[min(i, n - BIT)])
            i += step
    return found


@device
def arrive(found, control):
    """Whether this block arrives last; its thread 0 learns whether any block found something.

    The counter carries both, so that blocks need not see writes of others.
    """
    is_last, found = False, barrier_or(found)
    if thread_index() == NOTHING:
        mine = BIT + (FOUND if found else NOTHING)
        arrived = add_to_word(control, ARRIVED, mine) + mine
        found = arrived >= FOUND
        is_last = arrived % FOUND == blocks_per_grid()
        if is_last:
            add_to_word(control, ARRIVED, NOTHING - arrived)  # for the next step
    return barrier_or(is_last), found


@cache
def conclude(optimizer: AbstractOptimizer):
    """Device function (loss, why, wants_step, control, history, hyperparams, scalars), one thread.

    Writes the loss, given as bits, to the history, and decides whether the step runs: not if `why`
    says what is wrong. For one that does, it counts it and computes its scalars.
    """
    schedule = optimizer.schedule

    @device
    def conclude(loss, why, wants_step, control, history, hyperparams, scalars):
        skipped, runs = NOTHING, NOTHING
        if wants_step != NOTHING:
            if why != NOTHING:
                skipped = why
                control[N_SKIPPED] = control[N_SKIPPED] + BIT
            else:
                runs = BIT
                t = control[N_STEPS] + BIT
                control[N_STEPS] = t
                schedule(np.int32(t), hyperparams, scalars)
        control[RUNS] = runs
        serial = control[N_RESULTS]
        place = serial % HISTORY * 2
        history[place], history[place + BIT] = loss, skipped
        control[N_RESULTS] = serial + BIT

    return conclude


@cache
def finish_kernel(optimizer: AbstractOptimizer):
    """(gradients, n_gradients, others, n_others, partial_sums, n_sums, factor, control, history,
    hyperparams, scalars, wants_step).

    All blocks look for gradients and others' largest ones that are infinite, or count as such, or
    NaN, as those of the first matrix are where an input is. The last one to be done adds up the
    loss, writes it to the history, and decides whether the step runs; for one that does, it counts
    it and computes its scalars.
    """
    n_hyperparams, n_scalars = optimizer.n_hyperparams, optimizer.n_scalars
    end = conclude(optimizer)
    least_bad = np.float32(optimizer.least_bad_gradient).view(np.uint32)

    def finish_step(
        pgradients: Address, n_gradients: UInt, pothers: Address, n_others: UInt, psums: Address,
        n_sums: UInt, factor: Float, pcontrol: Address, phistory: Address, phyperparams: Address,
        pscalars: Address, wants_step: UInt,
    ):  # fmt: skip
        sums, control = float_vector(psums, n_sums), uint32_vector(pcontrol, N_CONTROL)
        history = uint32_vector(phistory, 2 * HISTORY)
        hyperparams = float_vector(phyperparams, n_hyperparams)
        scalars = float_vector(pscalars, n_scalars)
        bad = has_beyond(least_bad, pgradients, n_gradients)
        bad |= has_beyond(least_bad, pothers, n_others)
        is_last, bad = arrive(bad, control)
        if not is_last or thread_index() >= WARP:
            return
        loss = float_bits(sum_of(sums, n_sums) * factor)
        if thread_index() == NOTHING:
            bad |= is_beyond(INFINITY, loss)
            why = NOT_FINITE if bad else NOTHING
            end(loss, why, wants_step, control, history, hyperparams, scalars)

    return finish_step


def verify_step(
    pweights: Address, n_weights: UInt, pstate: Address, n_state: UInt, pcontrol: Address,
    phistory: Address,
):  # fmt: skip
    """(weights, n_weights, state, n_state, control, history), after a step that may overflow.

    If it made something infinite or NaN, it counts as skipped from now on, and `restore` works.
    """
    control = uint32_vector(pcontrol, N_CONTROL)
    if control[RUNS] == NOTHING:
        return
    bad = has_beyond(INFINITY, pweights, n_weights) | has_beyond(INFINITY, pstate, n_state)
    is_last, bad = arrive(bad, control)
    if is_last and thread_index() == NOTHING and bad:
        control[RUNS] = NOTHING
        control[N_STEPS] = control[N_STEPS] - BIT
        control[N_SKIPPED] = control[N_SKIPPED] + BIT
        serial = control[N_RESULTS] - BIT
        history = uint32_vector(phistory, 2 * HISTORY)
        history[serial % HISTORY * 2 + BIT] = NOT_FINITE


def restore(pbefore: Address, pafter: Address, n: UInt, pcontrol: Address):
    """(before, after, n, control): after = before, if the step does not count."""
    i, control = thread_number(), uint32_vector(pcontrol, N_CONTROL)
    if i < n and control[RUNS] == NOTHING:
        uint32_vector(pafter, n)[i] = uint32_vector(pbefore, n)[i]


@cache
def range_of_matrix(optimizer: AbstractOptimizer, layout: ParamLayout):
    """Device function m -> first parameter of matrix m, and the end."""
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

    def matrix_summands(
        pweights: Address, pgradients: Address, pstate: Address, pscalars: Address, psums: Address,
        pcontrol: Address,
    ):  # fmt: skip
        weights, gradients = float_vector(pweights, n), float_vector(pgradients, n)
        state, scalars = float_matrix(pstate, n_state, n), float_vector(pscalars, n_scalars)
        sums, control = float_vector(psums, n), uint32_vector(pcontrol, N_CONTROL)
        if control[RUNS] == NOTHING:
            return
        m = block_index_y()
        first, end = range_of(m)
        i, total = first + thread_number(), ZERO
        while i < end:
            total += summand(i, weights[i], gradients[i], state, scalars)
            i += SUM_LANES
        total = warp_sum(total)
        if thread_index() % WARP == NOTHING:
            lane = m * SUM_LANES + thread_number()
            sums[lane // WARP] = total

    return matrix_summands


@cache
def matrix_step_kernel(optimizer: AbstractOptimizer, layout: ParamLayout):
    """(partial_sums, matrices, scalars, control); a block of one warp for each matrix."""
    step = optimizer.matrix_step(layout)
    n_state, n_matrices, n_scalars = (
        optimizer.n_matrix_state, len(optimizer.matrix_ranges(layout)), optimizer.n_scalars,
    )  # fmt: skip

    def matrix_step(psums: Address, pmatrices: Address, pscalars: Address, pcontrol: Address):
        sums = float_vector(psums, n_matrices)
        matrices = float_matrix(pmatrices, n_state, n_matrices)
        scalars, control = float_vector(pscalars, n_scalars), uint32_vector(pcontrol, N_CONTROL)
        if control[RUNS] == NOTHING:
            return
        m, lane = block_index(), thread_index()
        total = warp_sum(sums[m * (SUM_LANES // WARP) + lane])
        if lane == NOTHING:
            step(m, total, matrices, scalars)

    return matrix_step


@cache
def optimize_kernel(
    optimizer: AbstractOptimizer, layout: ParamLayout, precision: str, pitch: int | None = None
):
    """(weights, gradients, state, scalars, matrices, copy, control, n): step all n parameters.

    A thread has group_size of them. Where the step does not run, the gradients are zeroed.

    With a pitch there are two more arguments, `first` and the address of other gradients, or 0: the
    parameters from `first` to n are stepped, and those gradients zeroed. A row of the state has
    `pitch` numbers, and begins as if those before `first` were there too.
    """
    step = step_group(optimizer, layout, precision, pitch or layout.n_params)
    clear = clear_group(optimizer, layout)
    size = group_size(optimizer, layout)
    n_matrix_state, n_matrices, n_scalars = (
        optimizer.n_matrix_state, len(optimizer.matrix_ranges(layout)), optimizer.n_scalars,
    )  # fmt: skip

    def optimize(
        pweights: Address, pgradients: Address, pstate: Address, pscalars: Address,
        pmatrices: Address, pcopy: Address, pcontrol: Address, n: UInt,
    ):  # fmt: skip
        weights, gradients = float_vector(pweights, n), float_vector(pgradients, n)
        scalars, matrices = (
            float_vector(pscalars, n_scalars),
            float_matrix(pmatrices, n_matrix_state, n_matrices),
        )
        control, i = uint32_vector(pcontrol, N_CONTROL), np.uintp(thread_number()) * np.uintp(size)
        if i < n:
            if control[RUNS] != NOTHING:
                step(i, weights, gradients, pstate, scalars, matrices, pcopy)
            else:
                clear(i, gradients)

    def optimize_part(
        pweights: Address, pgradients: Address, pstate: Address, pscalars: Address,
        pmatrices: Address, pcopy: Address, pcontrol: Address, n: UInt, first: UInt, pown: Address,
    ):  # fmt: skip
        weights, gradients = float_vector(pweights, n), float_vector(pgradients, n)
        scalars, matrices = (
            float_vector(pscalars, n_scalars),
            float_matrix(pmatrices, n_matrix_state, n_matrices),
        )
        i = np.uintp(thread_number()) * np.uintp(size) + np.uintp(first)
        if i < n:
            if uint32_vector(pcontrol, N_CONTROL)[RUNS] != NOTHING:
                step(i, weights, gradients, pstate, scalars, matrices, pcopy)
            elif pown != np.uint64(0):
                clear(i, float_vector(pown, n))

    name = type(optimizer).__name__
    optimize_part.__qualname__ = f"{name}.step.<locals>.{name}_optimize_part"
    if pitch is not None:
        return optimize_part
    optimize.__qualname__ = f"{name}.step.<locals>.{name}_optimize"
    return optimize
