"""Base of optimizers of matrices that leave all other parameters to Adam."""

import dataclasses
import math
from abc import abstractmethod
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import BOLD, AbstractOptimizer
from numbanet.optimizers.layout import ParamLayout
from numbanet.registry import check

RATE, ADAM_RATE = range(2)  # scalars, and hyperparams
DIRECTION = 1  # row of the state: the direction that `precondition` computes for matrices
LARGEST_FACTOR = 2.0**50  # of products of matrices that are to be finite
LARGEST_DIRECTION = 2.0**40


class AbstractWithAdam(AbstractOptimizer):
    """Optimizer that steps matrices by learning_rate times a direction, with weight_decay.

    `precondition` writes the directions to the row DIRECTION of the state. The options of Adam are
    those for the parameters that are no matrix.
    """

    learning_rate: float
    weight_decay: float
    adam_learning_rate: float
    beta1: float
    beta2: float
    epsilon: float

    n_state = 3
    n_scalars = 2
    rates = (RATE, ADAM_RATE)
    least_bad_gradient = LARGEST_FACTOR

    def __post_init__(self):
        for option in ("learning_rate", "adam_learning_rate", "weight_decay"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")
        _ = self.adam  # checks the options that are its own

    @cached_property
    def adam(self) -> Adam:
        options = {name: getattr(self, name) for name in ("beta1", "beta2", "epsilon")}
        return Adam(learning_rate=self.adam_learning_rate, l2_reg=0.0, **options)

    @property
    def is_tame(self):
        rate = self.learning_rate
        return rate <= BOLD and rate * self.weight_decay <= 1 and self.adam.is_tame

    def hyperparams(self) -> tuple[float, ...]:
        return self.learning_rate, self.adam_learning_rate

    @property
    def schedule(self):
        return both_rates

    def kernel_key(self):
        return dataclasses.replace(self, learning_rate=0.0, adam_learning_rate=0.0)

    def matrix_ranges(self, layout: ParamLayout) -> tuple[tuple[int, int], ...]:
        return layout.matrix_ranges[: len(layout.shapes)] or layout.matrix_ranges

    def preconditions(self, layout: ParamLayout) -> bool:
        return len(layout.shapes) > 0

    def limits(self, layout, state, matrices, statistics):
        for first, end in layout.matrix_ranges[: len(layout.shapes)]:
            momenta, directions = state[:2, first:end]
            yield "first moments", momenta, -LARGEST_FACTOR, LARGEST_FACTOR
            yield "directions", directions, -LARGEST_DIRECTION, LARGEST_DIRECTION
        for first, end in layout.matrix_ranges[len(layout.shapes) :]:
            rest = ParamLayout(end - first, (), first)
            yield from self.adam.limits(rest, state, matrices, statistics)

    @abstractmethod
    def matrix_summand(self, layout: ParamLayout):
        """Device function (i, w, g, state, scalars): `summand` of a matrix parameter."""

    def summand(self, layout: ParamLayout):
        in_matrix, of_matrix = layout.is_matrix, self.matrix_summand(layout)

        @device
        def summand(i, w, g, state, scalars):
            if in_matrix(i):
                return of_matrix(i, w, g, state, scalars)
            return ZERO

        return summand

    def moves(self, layout: ParamLayout):
        return self.adam.moves(layout)

    def step(self, layout: ParamLayout):
        in_matrix = layout.is_matrix
        adam, decay = self.adam.step(layout), np.float32(self.weight_decay)

        @device
        def step(i, w, g, state, scalars, matrices):
            if in_matrix(i):
                return w - scalars[RATE] * (state[DIRECTION, i] + decay * w)
            return adam(i, w, g, state, scalars[ADAM_RATE:], matrices)

        return step


@device
def both_rates(t, hyperparams, scalars):
    scalars[RATE], scalars[ADAM_RATE] = hyperparams[RATE], hyperparams[ADAM_RATE]
