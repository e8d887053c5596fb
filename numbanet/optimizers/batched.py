"""Batched: steps once for several calls, with the mean of their gradients."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.optimizers.wrapper import NESTED, AbstractWrapper
from numbanet.registry import check, register


@register("optimizer", "Batched")
@dataclass(frozen=True)
class Batched(AbstractWrapper):
    """Accumulates gradients: one step for batch_size_multiplier batches, with their mean."""

    batch_size_multiplier: int = 16
    nested: AbstractOptimizer = field(default=Adam(), metadata=NESTED)

    touches_all_state = False  # the nested optimizer's only where a group of calls ends
    n_own_state = 1
    n_own_scalars = 2  # whether a group of calls begins, and whether it ends

    def __post_init__(self):
        option = "batch_size_multiplier"
        check(getattr(self, option) >= 1, option, getattr(self, option), "an integer from 1")

    @property
    def n_calls_to_begin(self) -> int:
        return self.batch_size_multiplier * self.nested.n_calls_to_begin

    def limits(self, layout, state, matrices, statistics):
        yield from super().limits(layout, state, matrices, statistics)
        pooled = state[self.nested.n_state, layout.first : layout.first + layout.n_params]
        most = 2 * self.nested.least_bad_gradient
        yield "pooled gradients", pooled, -most, most

    @cached_property
    def schedule(self):
        nested, first = self.nested.schedule, self.nested.n_scalars
        multiplier = self.batch_size_multiplier

        @device
        def schedule(t, hyperparams, scalars):
            nested(np.int32((t - 1) // multiplier + 1), hyperparams, scalars)
            scalars[first] = select((t - 1) % multiplier == 0, ONE, ZERO)
            scalars[first + 1] = select(t % multiplier == 0, ONE, ZERO)

        return schedule

    @cached_property
    def pooled_gradient(self):
        """Device function (i, g, state, scalars): the mean's partial sum so far."""
        row, first = self.nested.n_state, self.nested.n_scalars
        inverse = np.float32(1 / self.batch_size_multiplier)

        @device
        def pooled_gradient(i, g, state, scalars):
            return select(scalars[first] > ZERO, ZERO, state[row, i]) + inverse * g

        return pooled_gradient

    def step(self, layout: ParamLayout):
        nested, pooled_gradient = self.nested.step(layout), self.pooled_gradient
        row, ends = self.nested.n_state, self.nested.n_scalars + 1

        @device
        def batched(i, w, g, state, scalars, matrices):
            g = pooled_gradient(i, g, state, scalars)
            state[row, i] = g
            if scalars[ends] > ZERO:  # the same for all i: the compiler takes it out of the loop
                w = nested(i, w, g, state, scalars, matrices)
            return w

        return batched

    def summand(self, layout: ParamLayout):
        nested, pooled_gradient = self.nested.summand(layout), self.pooled_gradient
        ends = self.nested.n_scalars + 1

        @device
        def summand(i, w, g, state, scalars):
            if scalars[ends] > ZERO:
                return nested(i, w, pooled_gradient(i, g, state, scalars), state, scalars)
            return ZERO

        return summand

    def matrix_step(self, layout: ParamLayout):
        nested, ends = self.nested.matrix_step(layout), self.nested.n_scalars + 1

        @device
        def matrix_step(m, total, matrices, scalars):
            if scalars[ends] > ZERO:
                nested(m, total, matrices, scalars)

        return matrix_step

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        arguments = operations, layout, state, matrices, statistics, scalars
        ends = self.nested.n_scalars + 1
        operations.when(scalars, ends, lambda: self.nested.precondition(*arguments))
