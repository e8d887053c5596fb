"""Muon: the momentum of each matrix, orthogonalised; Adam for what is no matrix.

M <- momentum M + (1 - momentum) G, D = (1 - momentum) G + momentum M (Nesterov), or M; w <- w -
learning_rate (sqrt(max(1, rows / columns)) U + weight_decay w), where n_iterations of Newton and
Schulz, X <- a X + (b X X^T + c (X X^T)^2) X, make U of X = D / |D|: its singular values are near 1.
Jordan et al. 2024, Muon: An Optimizer for Hidden Layers in Neural Networks.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

from numbanet.device import ZERO, device, select
from numbanet.optimizers.base import ParamLayout
from numbanet.optimizers.with_adam import DIRECTION, AbstractWithAdam
from numbanet.registry import check, register

MOMENTUM = 0  # row of the state
NORM = 0  # row of the matrices: the squared norm of D
TINY = np.float32(1e-15)  # a gradient of this norm is none
A, B, C = (np.float32(each) for each in (3.4445, -4.7750, 2.0315))  # Jordan et al.
MOST_ITERATIONS = 16


@register("optimizer", "Muon")
@dataclass(frozen=True)
class Muon(AbstractWithAdam):
    learning_rate: float = 0.02  # of matrices
    momentum: float = 0.95
    nesterov: bool = True
    n_iterations: int = 5
    weight_decay: float = 0.0  # of matrices
    adam_learning_rate: float = 1e-3  # of what is no matrix, as the options below
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    n_matrix_state = 1

    def __post_init__(self):
        super().__post_init__()
        momentum, n = self.momentum, self.n_iterations
        check(0 <= momentum < 1, "momentum", momentum, "a number in [0, 1)")
        check(1 <= n <= MOST_ITERATIONS, "n_iterations", n, f"1 to {MOST_ITERATIONS}")

    def matrix_summand(self, layout: ParamLayout):
        momentum, rest = np.float32(self.momentum), np.float32(1 - self.momentum)
        nesterov = self.nesterov

        @device
        def matrix_summand(i, w, g, state, scalars):
            m = momentum * state[MOMENTUM, i] + rest * g
            d = rest * g + momentum * m if nesterov else m
            state[MOMENTUM, i] = m
            state[DIRECTION, i] = d
            return d * d

        return matrix_summand

    def matrix_step(self, layout: ParamLayout):
        return keep_norm

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        n_params, pairs = state.shape[1], zip(layout.shapes, layout.matrix_ranges, strict=False)
        for k, (shape, (first, _)) in enumerate(pairs):
            d = operations.view(state, DIRECTION * n_params + first, shape)
            norm = operations.view(matrices, layout.first_matrix + k, (1, 1))
            self.orthogonalise(operations, d, norm)

    def orthogonalise(self, operations, d, norm) -> None:
        """Overwrite d with the direction of the step."""
        rows, columns = d.shape
        is_wide = rows <= columns
        gram, square = (operations.empty((min(d.shape),) * 2) for _ in range(2))
        x, product = (operations.empty(d.shape) for _ in range(2))
        operations.apply(normalised, x, d, norm)
        for _ in range(self.n_iterations):
            operations.product(x, x, gram, transpose_a=not is_wide, transpose_b=is_wide)
            operations.product(gram, gram, square)
            operations.apply(polynomial, gram, square)
            operations.product(*((gram, x) if is_wide else (x, gram)), product)
            operations.apply(add_product, x, product)
        operations.apply(scaled(max(1, rows / columns) ** 0.5), d, x)


@device
def keep_norm(m, total, matrices, scalars):
    matrices[NORM, m] = total


@device
def normalised(i, j, x, d, norm):
    length = math.sqrt(norm[0, 0])
    x[i, j] = select(length > TINY, d[i, j] / max(length, TINY), ZERO)


@device
def polynomial(i, j, gram, square):
    gram[i, j] = B * gram[i, j] + C * square[i, j]


@device
def add_product(i, j, x, product):
    x[i, j] = A * x[i, j] + product[i, j]


@functools.cache
def scaled(factor: float):
    factor = np.float32(factor)

    @device
    def scaled(i, j, d, x):
        d[i, j] = factor * x[i, j]

    return scaled
