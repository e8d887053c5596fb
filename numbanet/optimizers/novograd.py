"""Novograd: the gradient of each matrix is divided by its norm, which is a moving average.

v <- b2 v + (1 - b2) |g|^2 for each matrix, m <- b1 m + (1 - b1) g / (sqrt(v) + epsilon),
w <- w - learning_rate m, with b1 = b2 = 0 at the first step. The parameters that are no matrix
count as one. After Ginsburg et al. 2019.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import TINY
from numbanet.optimizers.base import BOLD, HUGE, LARGEST_SQUARE, AbstractOptimizer, ParamLayout
from numbanet.registry import check, register


@register("optimizer", "Novograd")
@dataclass(frozen=True)
class Novograd(AbstractOptimizer):
    """Decay acts on the weights, apart from the gradient."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    relative_decay: float = 0.0
    absolute_decay: float = 0.0

    n_state = 1  # m
    n_scalars = 3  # learning rate, beta1 and beta2 of the step
    n_matrix_state = 2  # v, 1 / (sqrt(v) + epsilon)

    def __post_init__(self):
        for option in ("beta1", "beta2"):
            value = getattr(self, option)
            check(0 <= value < 1, option, value, "a number in [0, 1)")
        for option in ("learning_rate", "epsilon", "relative_decay", "absolute_decay"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")

    @cached_property
    def schedule(self):
        beta1, beta2 = np.float32(self.beta1), np.float32(self.beta2)

        @device
        def schedule(t, hyperparams, scalars):
            scalars[0] = hyperparams[0]
            scalars[1] = select(t == 1, ZERO, beta1)
            scalars[2] = select(t == 1, ZERO, beta2)

        return schedule

    @property
    def is_tame(self):
        decay = max(self.relative_decay, self.absolute_decay)
        return self.learning_rate <= BOLD and self.learning_rate * decay <= 1

    def limits(self, layout, state, matrices, statistics):
        first_matrix = layout.first_matrix
        end = first_matrix + len(layout.matrix_ranges)
        yield "second moments and their inverse roots", matrices[:2, first_matrix:end], 0, math.inf
        m = state[0, layout.first : layout.first + layout.n_params]
        yield "first moments", m, -HUGE, HUGE

    def summand(self, layout: ParamLayout):
        return squared_gradient

    def matrix_step(self, layout: ParamLayout):
        epsilon = max(np.float32(self.epsilon), TINY)

        @device
        def matrix_step(m, total, matrices, scalars):
            beta2 = scalars[2]
            v = beta2 * matrices[0, m] + (ONE - beta2) * min(total, LARGEST_SQUARE)
            matrices[0, m] = v
            matrices[1, m] = ONE / (math.sqrt(v) + epsilon)

        return matrix_step

    def step(self, layout: ParamLayout):
        matrix_of = layout.matrix_of
        relative, absolute = np.float32(self.relative_decay), np.float32(self.absolute_decay)

        @device
        def novograd(i, w, g, state, scalars, matrices):
            rate, beta1 = scalars[0], scalars[1]
            m = beta1 * state[0, i] + (ONE - beta1) * (g * matrices[1, matrix_of(i)])
            state[0, i] = m
            decay = relative * w + select(w < ZERO, -absolute, absolute)
            return w - rate * (decay + m)

        return novograd


@device
def squared_gradient(i, w, g, state, scalars):
    return g * g
