"""Shampoo: the momentum of each matrix, multiplied by inverse roots of its covariances.

M = m1 / (sqrt(m2) + epsilon) with averages m1 of g and m2 of g^2. For a matrix, with averages L of
G G^T, R of G^T G and S of L^-1/4 M R^-1/4: w <- w - learning_rate |M| / |S| S. What is no matrix
moves by M. Gupta, Koren and Singer 2018; Anil et al. 2020.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import TINY
from numbanet.optimizers.base import (
    BOLD,
    HUGE,
    AbstractOptimizer,
    ParamLayout,
    bounded_square,
    debiased_average,
)
from numbanet.optimizers.covariances import (
    WithCovariances,
    add_covariance,
    average_with,
    limits_of_covariance,
    numpy_view,
)
from numbanet.optimizers.inverse_root import inverse_fourth_root
from numbanet.optimizers.limits import limits_of_moments
from numbanet.registry import check, register

M1, M2, M, S, G = range(5)  # rows of the state
RATE, KEEP_M1, ADD_M1, KEEP_M2, ADD_M2, KEEP_L, ADD_L, KEEP_S, ADD_S, IS_DUE = range(10)  # scalars
LARGEST_FACTOR = 2.0**50  # of products of matrices that are to be finite
MOST_ROOT, MOST_COVARIANCE, MOST_S = 2.0**33, 2.0**126, 2.0**100
NORM_M, NORM_S = range(2)  # rows of the matrices: squared norms


@register("optimizer", "Shampoo")
@dataclass(frozen=True)
class Shampoo(WithCovariances, AbstractOptimizer):
    """Inverse roots are computed anew at the first step, every 10 until step 100, then every 200.

    No matrix moves at the first step.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.99
    beta3: float = 0.9  # of L and R
    beta_shampoo: float = 0.9  # of S
    epsilon: float = 1e-8
    identity: float = 0.01  # share of the identity in what the roots are of
    cg_on_momentum: bool = True  # whether G is M, or the gradient
    l2_reg: float = 1e-5
    relative_decay: float = 0.0
    absolute_decay: float = 0.0
    frobenius_normalization: bool = True  # whether |M| / |S| is a factor

    touches_all_state = False
    n_scalars = 10
    n_matrix_state = 2

    def __post_init__(self):
        for option in ("beta1", "beta2", "beta3", "beta_shampoo"):
            value = getattr(self, option)
            check(0 <= value < 1, option, value, "a number in [0, 1)")
        check(0 < self.identity <= 1, "identity", self.identity, "a number in (0, 1]")
        for option in ("learning_rate", "epsilon", "l2_reg", "relative_decay", "absolute_decay"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")

    @property
    def least_bad_gradient(self):
        return HUGE if self.cg_on_momentum else LARGEST_FACTOR

    @property
    def is_tame(self):
        decay = max(self.relative_decay, self.absolute_decay)
        is_normalized = self.beta1**2 <= self.beta2 and self.l2_reg <= 1
        rate = self.learning_rate
        return rate <= BOLD and rate * decay <= 1 and is_normalized

    @property
    def n_state(self):
        return 4 if self.cg_on_momentum else 5

    def limits(self, layout, state, matrices, statistics):
        mine = state[:, layout.first : layout.first + layout.n_params]
        yield from limits_of_moments(mine[M1], mine[M2], max(self.epsilon, TINY))
        yield "preconditioned directions", mine[S], -MOST_S, MOST_S
        first_matrix = layout.first_matrix
        end = first_matrix + len(layout.matrix_ranges)
        yield "squared norms", matrices[:2, first_matrix:end], 0, math.inf
        for left, left_root, *of_right in self.statistics_of(numpy_view, layout, statistics):
            for covariance, root in ((left, left_root), of_right):
                yield from limits_of_covariance(covariance, MOST_COVARIANCE)
                yield "roots of covariances", root, -MOST_ROOT, MOST_ROOT

    @cached_property
    def schedule(self):
        decays = self.beta1, self.beta2, self.beta3, self.beta_shampoo
        of_m1, of_m2, of_l, of_s = map(debiased_average, decays)

        @device
        def schedule(t, hyperparams, scalars):
            scalars[RATE] = hyperparams[0]
            scalars[KEEP_M1], scalars[ADD_M1] = of_m1(t)
            scalars[KEEP_M2], scalars[ADD_M2] = of_m2(t)
            scalars[KEEP_L], scalars[ADD_L] = of_l(t)
            keep, add = of_s(max(t - 1, 1))
            scalars[KEEP_S] = keep
            scalars[ADD_S] = select(t > 1, add, ZERO)
            interval = select(t < 100, 10, 200)
            scalars[IS_DUE] = select((t == 1) | (t % interval == 0), ONE, ZERO)

        return schedule

    def summand(self, layout: ParamLayout):
        l2_reg, epsilon = np.float32(self.l2_reg), max(np.float32(self.epsilon), TINY)
        keeps_gradient = not self.cg_on_momentum

        @device
        def summand(i, w, g, state, scalars):
            if keeps_gradient:
                state[G, i] = g
            g += l2_reg * w
            m1 = scalars[KEEP_M1] * state[M1, i] + scalars[ADD_M1] * g
            m2 = scalars[KEEP_M2] * state[M2, i] + scalars[ADD_M2] * bounded_square(g)
            m = m1 / (math.sqrt(m2) + epsilon)
            state[M1, i] = m1
            state[M2, i] = m2
            state[M, i] = m
            return m * m

        return summand

    def matrix_step(self, layout: ParamLayout):
        return keep_norm

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        pairs = zip(layout.shapes, layout.matrix_ranges, strict=False)
        all_statistics = self.statistics_of(operations.view, layout, statistics)
        n_params, n_matrices = state.shape[1], matrices.shape[1]
        for k, ((shape, (first, _)), mine) in enumerate(zip(pairs, all_statistics, strict=True)):
            m, s, g = (
                operations.view(state, row * n_params + first, shape)
                for row in (M, S, M if self.cg_on_momentum else G)
            )
            norm = operations.view(matrices, NORM_S * n_matrices + layout.first_matrix + k, (1, 1))
            self.precondition_matrix(operations, m, s, g, norm, mine, scalars)

    def precondition_matrix(self, operations, m, s, g, norm, statistics, scalars) -> None:
        left, left_root, right, right_root = statistics
        for covariance, root, is_left in ((left, left_root, True), (right, right_root, False)):
            add_covariance(operations, covariance, g, scalars, average_with(KEEP_L, ADD_L), is_left)
            arguments = operations, covariance, root, self.identity
            operations.when(scalars, IS_DUE, lambda a=arguments: inverse_fourth_root(*a))
        half, whole = operations.empty(m.shape), operations.empty(m.shape)
        operations.product(left_root, m, half)
        operations.product(half, right_root, whole)
        operations.apply(average_with(KEEP_S, ADD_S), s, whole, scalars)
        operations.norm_squared(s, norm)

    def step(self, layout: ParamLayout):
        matrix_of, in_matrix = layout.matrix_of, layout.is_matrix
        relative, absolute = np.float32(self.relative_decay), np.float32(self.absolute_decay)
        normalizes = self.frobenius_normalization

        @device
        def shampoo(i, w, g, state, scalars, matrices):
            is_matrix, ratio = in_matrix(i), ONE
            if normalizes:
                m = matrix_of(i)
                ratio = math.sqrt(matrices[NORM_M, m] / max(matrices[NORM_S, m], TINY))
            ratio = select(scalars[ADD_S] > ZERO, ratio, ZERO)  # not at the first step
            factor = select(is_matrix, ratio, ONE)
            decay = relative * w + select(w < ZERO, -absolute, absolute)
            direction = select(is_matrix, state[S, i], state[M, i])
            return w - scalars[RATE] * factor * (decay + direction)

        return shampoo


@device
def keep_norm(m, total, matrices, scalars):
    matrices[NORM_M, m] = total
