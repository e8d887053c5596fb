"""A slow float64 training step to verify methods against.

Uses NumPy only and nothing of numbanet, so that it can judge numbanet as well. Vectors of
parameters hold the matrices row by row, without padding, then the table of grid entries.
"""

import math

import numpy as np

from benchmarks.harness.grid import LEVELS, N_ENTRIES, N_FEATURES, corners
from benchmarks.harness.samples import BETA1, BETA2, LEARNING_RATE, LOSS_EPSILON


def split(params, shapes):
    """Return views of a parameter vector: the matrices and the table [entries, 2]."""
    parts, start = [], 0
    for rows, columns in shapes:
        parts.append(params[start : start + rows * columns].reshape(rows, columns))
        start += rows * columns
    return [*parts, params[start:].reshape(-1, N_FEATURES)]


def initial_params(table_scale, shapes, n_entries, seed=1337):
    """Draw Xavier-uniform matrices (for 16 padded outputs) and a grid near zero."""
    rng = np.random.default_rng(seed)
    n_params = sum(map(math.prod, shapes)) + n_entries * N_FEATURES
    params = rng.uniform(-1, 1, n_params).astype(np.float32)
    *matrices, table = split(params, shapes)
    for matrix in matrices:
        rows, columns = matrix.shape
        scale = np.float32(math.sqrt(6 / (max(rows, 16) + columns)))
        np.multiply(matrix, scale, out=matrix)
    table *= np.float32(table_scale)
    return params


class Reference:
    """The same training step, slowly, in float64: what every method is verified against.

    Args:
        params: to start from.
        skips_zero_gradients: whether Adam leaves grid entries without a gradient as they are.
        shapes: of the matrices.
        encode: from positions to features, for an encoding other than the grid; it has no
            parameters.
        epsilon, l2_reg: Adam's.
    """

    def __init__(self, params, skips_zero_gradients, *, shapes, encode, epsilon, l2_reg):
        self.params = params.astype(np.float64)
        self.skips_zero_gradients = skips_zero_gradients
        self.shapes, self.encode = shapes, encode
        self.epsilon, self.l2_reg = epsilon, l2_reg
        self.moments = np.zeros((2, params.size))
        self.n_updates = np.zeros(params.size)

    def features(self, positions, table):
        if self.encode is not None:
            return self.encode(positions)
        features = np.zeros((len(positions), 2 * len(LEVELS)))
        for number, entry, weight in corners(positions):
            features[:, 2 * number : 2 * number + 2] += weight[:, None] * table[entry]
        return features

    def forward(self, positions):
        """Return the activations: features, hidden layers, outputs."""
        *matrices, table = split(self.params, self.shapes)
        hidden = [self.features(positions, table)]
        for matrix in matrices[:-1]:
            hidden.append(np.maximum(hidden[-1] @ matrix.T, 0))
        return [*hidden, hidden[-1] @ matrices[-1].T]

    def loss_and_gradients(self, positions, targets):
        """Return the loss and the gradient vector."""
        *hidden, outputs = self.forward(positions)
        *matrices, _ = split(self.params, self.shapes)
        gradients = np.zeros(self.params.size)
        *dl_dmatrices, dl_dtable = split(gradients, self.shapes)
        difference, scale = outputs - targets, 1 / (outputs**2 + LOSS_EPSILON)
        dl_dy = 2 * difference * scale / outputs.size
        for i in reversed(range(len(matrices))):
            dl_dmatrices[i][:] = dl_dy.T @ hidden[i]
            dl_dy = dl_dy @ matrices[i]
            if i > 0:
                dl_dy *= hidden[i] > 0
        for number, entry, weight in corners(positions) if self.encode is None else ():
            for feature in range(2):
                values = weight * dl_dy[:, 2 * number + feature]
                dl_dtable[:, feature] += np.bincount(entry, values, N_ENTRIES)
        return float(np.mean(difference**2 * scale)), gradients

    def step(self, positions, targets):
        """Make one Adam step and return the loss before it."""
        loss, gradients = self.loss_and_gradients(positions, targets)
        is_network = np.arange(self.params.size) < sum(map(math.prod, self.shapes))
        active = is_network | (gradients != 0) | (not self.skips_zero_gradients)
        gradients += self.l2_reg * self.params * is_network
        for moment, beta, value in zip(
            self.moments, (BETA1, BETA2), (gradients, gradients**2), strict=True
        ):
            moment[active] = beta * moment[active] + (1 - beta) * value[active]
        self.n_updates += active
        first, second = (
            moment / np.maximum(1 - beta**self.n_updates, 1e-300)
            for moment, beta in zip(self.moments, (BETA1, BETA2), strict=True)
        )
        change = LEARNING_RATE * first / (np.sqrt(second) + self.epsilon)
        self.params -= np.where(active, change, 0)
        return loss
