"""Optimizer's steps of a grid's parameters by the kernel that finishes their gradients."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.cuda.launch.threads import block_index_y, thread_number
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.cuda.optimizer.kernels import N_CONTROL, NOTHING, RUNS
from numbanet.cuda.optimizer.parameter_groups import FOUR, step_given
from numbanet.cuda.tables.plan import TablePlan
from numbanet.device import ZERO, device, local_array, select, set_four
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.storage.memory_access import load_four_floats, store_four_floats
from numbanet.storage.views import float_matrix, float_vector, uint32_vector


@dataclass(frozen=True)
class Stepped:
    """An optimizer of a model's parameters, of which those of a grid begin at `first`."""

    optimizer: AbstractOptimizer
    layout: ParamLayout
    precision: str
    first: int


@cache
def collect_step_kernel(plan: TablePlan, stepped: Stepped):
    """(partial sums, slices, gradients, factor, weights, state, scalars, matrices, copy, control).

    Adds up the slices of all resident levels, of which block y has one, writes the gradients of all
    parameters, and steps those of the levels: four to a thread. Where the step does not run, the
    gradients are zeroed.
    """
    optimizer, n = stepped.optimizer, stepped.layout.n_params
    step = step_given(optimizer, stepped.layout, stepped.precision, n)
    jobs = {job.level: job for job in plan.residents}.values()
    firsts = tuple(np.uint32(stepped.first + job.first_param) for job in jobs)
    places = tuple(np.uint32(job.first_sum) for job in jobs)
    counts = tuple(np.uint32(job.size * plan.n_features) for job in jobs)
    most, stride = plan.most_slices, np.uint64(plan.n_resident_sums)
    n_scalars, n_matrix_state = optimizer.n_scalars, optimizer.n_matrix_state

    @device
    def add_slice(s, n_slices, place, partial, g):
        here = np.uint64(min(np.uint32(s), n_slices - 1)) * stride + place
        of_slice = load_four_floats(partial, here)
        for j in range(FOUR):
            g[j] += select(s < n_slices, of_slice[j], ZERO)

    def collect_step(
        ppartial: Address, n_slices: UInt, pgradients: Address, factor: Float, pweights: Address,
        pstate: Address, pscalars: Address, pmatrices: Address, pcopy: Address, pcontrol: Address,
    ):  # fmt: skip
        level, k = block_index_y(), FOUR * thread_number()
        if k >= counts[level]:
            return
        gradients, i = float_vector(pgradients, n), np.uintp(firsts[level]) + np.uintp(k)
        if uint32_vector(pcontrol, N_CONTROL)[RUNS] == NOTHING:
            store_four_floats(gradients, i, ZERO, ZERO, ZERO, ZERO)
            return
        g, place = local_array(FOUR), np.uint64(places[level]) + np.uint64(k)
        set_four(g, 0, (ZERO, ZERO, ZERO, ZERO))
        for s in range(most):  # whose number is known, so that several are loaded at once
            add_slice(s, n_slices, place, float_vector(ppartial, stride), g)
        for j in range(FOUR):
            g[j] *= factor
        store_four_floats(gradients, i, g[0], g[1], g[2], g[3])
        scalars, matrices = (
            float_vector(pscalars, n_scalars),
            float_matrix(pmatrices, n_matrix_state, 1),
        )
        step(i, g, float_vector(pweights, n), pstate, scalars, matrices, pcopy)

    collect_step.__qualname__ = f"{type(optimizer).__name__}_collect_step"
    return collect_step
