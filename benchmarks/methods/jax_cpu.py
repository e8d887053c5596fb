"""JAX: one jitted step with donated state.

What made it fast on a CPU, each measured: corners and updates kept out of the scatter's loop (an
optimization barrier; XLA otherwise recomputes them one by one inside it), one scatter per level
(they run in parallel), blocks of samples that stay in the cache, smaller ones for the matrix
products, and the table's Adam on one flat array.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.harness.grid import HASH_PRIME, LEVELS
from benchmarks.harness.reference import split
from benchmarks.harness.samples import BETA1, BETA2, HASH, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.method import Method

EPSILON, L2_REG = HASH["optimizer"]["epsilon"], HASH["optimizer"]["l2_reg"]

GRID_BLOCK, NETWORK_BLOCK = 2**14, 2**12


def corners(positions):
    """Return entries and weights, per level [4, n]."""
    indices, weights = [], []
    for level in LEVELS:
        at = positions.T * np.float32(level.scale) + np.float32(0.5)
        cell = jnp.floor(at)
        fraction = at - cell
        x, y = cell.astype(jnp.uint32)
        index, weight = [], []
        for dx, dy in (0, 0), (1, 0), (0, 1), (1, 1):
            right, down = x + np.uint32(dx), y + np.uint32(dy)
            if level.hashed:
                entry = (right ^ (down * np.uint32(HASH_PRIME))) & np.uint32(level.n_entries - 1)
            else:
                entry = right + down * np.uint32(level.resolution)
                n_entries = np.uint32(level.n_entries)
                entry = jnp.where(entry >= n_entries, entry - n_entries, entry)
            index.append(entry.astype(jnp.int32))
            weight.append(
                (fraction[0] if dx else 1 - fraction[0]) * (fraction[1] if dy else 1 - fraction[1])
            )
        indices.append(jnp.stack(index))
        weights.append(jnp.stack(weight))
    return indices, weights


def level_tables(table):
    return [table[level.offset : level.offset + level.n_entries] for level in LEVELS]


def interpolate(tables, indices, weights):
    features = [
        sum(weight[k][:, None] * table.at[index[k]].get(mode="promise_in_bounds") for k in range(4))
        for table, index, weight in zip(tables, indices, weights, strict=True)
    ]
    return jnp.concatenate(features, axis=1)


def network(matrices, features):
    first, second, third = matrices
    hidden = jnp.maximum(features @ first.T, 0)
    hidden = jnp.maximum(hidden @ second.T, 0)
    return hidden @ third.T


def total_loss(matrices, features, targets):
    outputs = network(matrices, features)
    scale = 1 / (lax.stop_gradient(outputs) ** 2 + np.float32(LOSS_EPSILON))
    return jnp.sum((outputs - targets) ** 2 * scale)


def blocks(array, size):
    """Reshape to [blocks, size, columns]; one block when the size does not divide the rows."""
    n, columns = array.shape
    return array.reshape(-1, size if n % size == 0 else n, columns)


def add(left, right):
    return jax.tree.map(jnp.add, left, right)


def loss_and_gradients(matrices, table, positions, targets):
    """Return the mean loss and the gradients of matrices and table."""
    tables = level_tables(table)

    def network_block(sums, block):
        features, targets = block
        value, (dl_dmatrices, dl_dfeatures) = jax.value_and_grad(total_loss, argnums=(0, 1))(
            matrices, features, targets
        )
        return add(sums, (value, dl_dmatrices)), dl_dfeatures

    def grid_block(sums, block):
        network_sums, dl_dtables = sums
        positions, targets = block
        indices, weights = lax.optimization_barrier(corners(positions))
        features = interpolate(tables, indices, weights)
        network_sums, dl_dfeatures = lax.scan(
            network_block,
            network_sums,
            (blocks(features, NETWORK_BLOCK), blocks(targets, NETWORK_BLOCK)),
        )
        dl_dfeatures = dl_dfeatures.reshape(-1, 2 * len(LEVELS))
        updates = lax.optimization_barrier(
            [
                weight[:, :, None] * dl_dfeatures[:, 2 * i : 2 * i + 2]
                for i, weight in enumerate(weights)
            ]
        )
        dl_dtables = [
            dl_dtable.at[index.reshape(-1)].add(update.reshape(-1, 2), mode="promise_in_bounds")
            for dl_dtable, index, update in zip(dl_dtables, indices, updates, strict=True)
        ]
        return (network_sums, dl_dtables), None

    zeros = jax.tree.map(jnp.zeros_like, ((jnp.float32(0), matrices), tables))
    ((value, dl_dmatrices), dl_dtables), _ = lax.scan(
        grid_block, zeros, (blocks(positions, GRID_BLOCK), blocks(targets, GRID_BLOCK))
    )
    dl_dtable = lax.optimization_barrier(jnp.concatenate(dl_dtables))
    mean = np.float32(1 / targets.size)
    return jax.tree.map(lambda total: total * mean, (value, dl_dmatrices, dl_dtable))


def adam(param, gradient, state, active):
    """Return the updated parameter and state; the state keeps the powers of beta per entry."""

    def keep(new, old):
        return new if active is True else jnp.where(active, new, old)

    first, second, power1, power2 = state
    first = keep(BETA1 * first + (1 - BETA1) * gradient, first)
    second = keep(BETA2 * second + (1 - BETA2) * gradient**2, second)
    power1, power2 = keep(power1 * BETA1, power1), keep(power2 * BETA2, power2)
    rate = LEARNING_RATE * jnp.sqrt(1 - power2) / (1 - power1)
    param = keep(param - rate * first / (jnp.sqrt(second) + EPSILON), param)
    return param, (first, second, power1, power2)


@partial(jax.jit, donate_argnums=0)
def training_step(state, positions, targets):
    matrices, matrix_states, table, table_state = state
    value, dl_dmatrices, dl_dtable = loss_and_gradients(matrices, table, positions, targets)
    updated = [
        adam(matrix, gradient + L2_REG * matrix, matrix_state, active=True)
        for matrix, gradient, matrix_state in zip(
            matrices, dl_dmatrices, matrix_states, strict=True
        )
    ]
    matrices, matrix_states = map(list, zip(*updated, strict=True))
    table, table_state = adam(table, dl_dtable, table_state, dl_dtable != 0)
    return (matrices, matrix_states, table, table_state), value


@jax.jit
def infer(matrices, table, positions):
    tables = level_tables(table)

    def network_block(features):
        return network(matrices, features)

    def grid_block(positions):
        features = interpolate(tables, *corners(positions))
        return lax.map(network_block, blocks(features, NETWORK_BLOCK)).reshape(-1, 3)

    return lax.map(grid_block, blocks(positions, GRID_BLOCK)).reshape(-1, 3)


class Jax(Method):
    def __init__(self, job, params):
        *matrices, table = (jnp.array(part) for part in split(params, job.shapes))

        def adam_state(param):
            return tuple(jnp.full_like(param, value) for value in (0, 0, 1, 1))

        matrix_states = [adam_state(matrix) for matrix in matrices]
        self.state = (matrices, matrix_states, table, adam_state(table))

    def versions(self):
        return {"jax": jax.__version__}

    def place(self, array):
        return jnp.array(array)

    def wait(self, result):
        return jax.block_until_ready(result)

    def step(self, positions, targets):
        self.state, value = training_step(self.state, positions, targets)
        return value

    def inference(self, positions):
        matrices, _, table, _ = self.state
        return infer(matrices, table, positions)

    def loss_and_gradients(self, positions, targets):
        matrices, _, table, _ = self.state
        value, *gradients = jax.jit(loss_and_gradients)(matrices, table, positions, targets)
        return float(value), flatten(*gradients)

    def params(self):
        matrices, _, table, _ = self.state
        return flatten(matrices, table)


def flatten(matrices, table):
    return np.concatenate([np.asarray(part).ravel() for part in (*matrices, table)])
