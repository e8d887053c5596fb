"""SOAP: Adam in the eigenbasis of Shampoo's covariances, for matrices; Adam itself for the rest.

With averages M of the gradient G, L of G G^T and R of G^T G, and orthogonal matrices P and Q of
eigenvectors of L and R: V is an average of (P^T G Q)^2, N = P^T M Q / (sqrt(V) + epsilon), and
w <- w - learning_rate (P N Q^T + weight_decay w). Every `interval` steps P and Q take one round of
orthogonal iteration, P <- orthonormalised L P. Vyas et al. 2024, SOAP: Improving and Stabilizing
Shampoo using Adam. At the first step, which has no basis yet, no matrix moves.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, select
from numbanet.optimizers.adam import TINY
from numbanet.optimizers.base import bounded_square, debiased_average
from numbanet.optimizers.covariances import (
    WithCovariances,
    add_covariance,
    average_with,
    limits_of_covariance,
    numpy_view,
)
from numbanet.optimizers.layout import ParamLayout
from numbanet.optimizers.with_adam import ADAM_RATE, DIRECTION, RATE, AbstractWithAdam
from numbanet.registry import check, register

M, V, G = 0, 2, 3  # rows of the state of matrices
KEEP_M, ADD_M, KEEP_V, ADD_V, KEEP_L, ADD_L, EPSILON, IS_DUE, IS_FIRST = range(2, 11)  # scalars
FIRST_ROUNDS = 8  # of the iteration, from the identity
DAMPING = np.float32(1e-3)  # share of the mean variance that is added to all of them
LARGEST_COVARIANCE = 2.0**126


@register("optimizer", "SOAP")
@dataclass(frozen=True)
class SOAP(WithCovariances, AbstractWithAdam):
    learning_rate: float = 3e-3  # of matrices
    matrix_beta1: float = 0.95  # of M
    matrix_beta2: float = 0.95  # of V
    shampoo_beta: float = 0.95  # of L and R
    interval: int = 10  # steps
    weight_decay: float = 0.0  # of matrices
    adam_learning_rate: float = 1e-3  # of what is no matrix, as the betas below
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    n_state = 4
    n_scalars = 11
    n_matrix_state = 1  # which nothing needs: so `summand` is called
    touches_all_state = False  # three rows of other parameters are not

    def __post_init__(self):
        super().__post_init__()
        for option in ("matrix_beta1", "matrix_beta2", "shampoo_beta"):
            value = getattr(self, option)
            check(0 <= value < 1, option, value, "a number in [0, 1)")
        check(self.interval >= 1, "interval", self.interval, "an integer from 1")

    @property
    def is_tame(self):
        return super().is_tame and self.matrix_beta1**2 <= self.matrix_beta2

    def limits(self, layout, state, matrices, statistics):
        yield from super().limits(layout, state, matrices, statistics)
        for first, end in layout.matrix_ranges[: len(layout.shapes)]:
            yield "second moments", state[V, first:end], 0, math.inf
        for left, _, right, _ in self.statistics_of(numpy_view, layout, statistics):
            for covariance in (left, right):
                yield from limits_of_covariance(covariance, LARGEST_COVARIANCE)

    @cached_property
    def schedule(self):
        betas = self.matrix_beta1, self.matrix_beta2, self.shampoo_beta
        of_m, of_v, of_l = map(debiased_average, betas)
        interval, epsilon = self.interval, max(np.float32(self.epsilon), TINY)

        @device
        def schedule(t, hyperparams, scalars):
            scalars[RATE], scalars[ADAM_RATE] = hyperparams[RATE], hyperparams[ADAM_RATE]
            scalars[KEEP_M], scalars[ADD_M] = of_m(t)
            keep, add = of_v(max(t - 1, 1))
            scalars[KEEP_V] = keep
            scalars[ADD_V] = select(t > 1, add, ZERO)
            scalars[KEEP_L], scalars[ADD_L] = of_l(t)
            scalars[EPSILON] = epsilon
            scalars[IS_FIRST] = select(t == 1, ONE, ZERO)
            scalars[IS_DUE] = select((t > 1) & (t % interval == 0), ONE, ZERO)

        return schedule

    def matrix_summand(self, layout: ParamLayout):
        @device
        def matrix_summand(i, w, g, state, scalars):
            state[M, i] = scalars[KEEP_M] * state[M, i] + scalars[ADD_M] * g
            state[G, i] = g
            return ZERO

        return matrix_summand

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        n_params, ranges = state.shape[1], layout.matrix_ranges
        kept = list(self.statistics_of(operations.view, layout, statistics))
        for shape, (first, _), mine in zip(layout.shapes, ranges, kept, strict=False):
            rows = (
                operations.view(state, row * n_params + first, shape)
                for row in (M, DIRECTION, V, G)
            )
            step_in_basis(operations, *rows, mine, scalars)
        operations.when(scalars, IS_FIRST, lambda: begin(operations, kept))
        operations.when(scalars, IS_DUE, lambda: turn(operations, kept))


def step_in_basis(operations, m, direction, v, g, kept, scalars) -> None:
    """Write the direction, and add the gradient to the covariances."""
    left, p, right, q = kept
    half, m_turned, g_turned = (operations.empty(m.shape) for _ in range(3))
    for matrix, turned in ((m, m_turned), (g, g_turned)):
        operations.product(p, matrix, half, transpose_a=True)
        operations.product(half, q, turned)
    operations.apply(adam_step, m_turned, g_turned, v, scalars)
    operations.product(p, m_turned, half)
    operations.product(half, q, direction, transpose_b=True)
    for covariance, is_left in ((left, True), (right, False)):
        add_covariance(operations, covariance, g, scalars, average_with(KEEP_L, ADD_L), is_left)


def begin(operations, kept) -> None:
    for left, p, right, q in kept:
        for covariance, basis in ((left, p), (right, q)):
            operations.apply(identity, basis)
            for _ in range(FIRST_ROUNDS):
                turn_basis(operations, covariance, basis)


def turn(operations, kept) -> None:
    for left, p, right, q in kept:
        for covariance, basis in ((left, p), (right, q)):
            turn_basis(operations, covariance, basis)


def turn_basis(operations, covariance, basis) -> None:
    """Orthogonal iteration, damped so that directions without variance stay."""
    product, trace = operations.empty(basis.shape), operations.empty((1, 1))
    operations.product(covariance, basis, product)
    operations.trace(covariance, trace)
    operations.apply(add_damping, product, basis, trace)
    operations.orthonormalize(product)
    operations.apply(copy, basis, product)


@device
def adam_step(i, j, m, g, v, scalars):
    average = scalars[KEEP_V] * v[i, j] + scalars[ADD_V] * bounded_square(g[i, j])
    v[i, j] = average
    step = m[i, j] / (math.sqrt(average) + scalars[EPSILON])
    m[i, j] = select(scalars[ADD_V] > ZERO, step, ZERO)


@device
def identity(i, j, basis):
    basis[i, j] = select(i == j, ONE, ZERO)


@device
def add_damping(i, j, product, basis, trace):
    product[i, j] += (DAMPING * trace[0, 0] / np.float32(product.shape[0])) * basis[i, j]


@device
def copy(i, j, to, values):
    to[i, j] = values[i, j]
