"""JAX: one jitted step with donated state, the network in bfloat16, compiled for each batch size.

The grid is one gather for all corners of all levels, and its gradient one scatter. Adam is dense,
as optax's.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # other processes need memory too

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.harness.grid import LEVELS
from benchmarks.harness.reference import split
from benchmarks.harness.samples import BETA1, BETA2, LEARNING_RATE, LOSS_EPSILON
from benchmarks.methods.jax_cpu import corners
from benchmarks.methods.method import Method

PLATFORM = "gpu"
if jax.default_backend() != PLATFORM:
    raise ImportError("this JAX finds no GPU")

OFFSETS = np.array([level.offset for level in LEVELS], np.int32)[:, None, None]


def grid(table, positions):
    """Return the features [n, 32]."""
    entries, weights = map(jnp.stack, corners(positions))  # [levels, 4, n]
    values = table.at[entries + OFFSETS].get(mode="promise_in_bounds")
    features = jnp.sum(values * weights[..., None], axis=1)  # [levels, n, 2]
    return features.transpose(1, 0, 2).reshape(len(positions), -1)


def one_blob(positions, n_bins):
    """Return the features [n, 2 * n_bins]; distances are wrapped around once."""
    left = jnp.arange(n_bins, dtype=jnp.float32) - n_bins * positions[:, :, None]
    left = left - n_bins * jnp.floor((left + n_bins / 2) / n_bins)
    return (blob_integral(left + 1) - blob_integral(left)).reshape(len(positions), -1)


def blob_integral(u):
    u = jnp.clip(u, -1, 1)
    q = u * u
    return 0.5 + u * (15 / 16 + q * (3 / 16 * q - 5 / 8))


def network(matrices, hidden):
    *first, last = (matrix.astype(jnp.bfloat16).T for matrix in matrices)
    hidden = hidden.astype(jnp.bfloat16)
    for matrix in first:
        hidden = jnp.maximum(hidden @ matrix, 0)
    return (hidden @ last).astype(jnp.float32)


class Jax(Method):
    precision = "bfloat16"
    skips_zero_gradients = False

    def __init__(self, job, params):
        *matrices, table = (jnp.array(part) for part in split(params, job.shapes))
        params = matrices, table
        zeros = jax.tree.map(jnp.zeros_like, (params, params))
        self.state = params, zeros, jnp.float32(0)
        encoding, n_bins = job.encoding, job.config["encoding"].get("n_bins")

        def outputs(params, inputs):
            matrices, table = params
            if encoding == "HashGrid":
                inputs = grid(table, inputs)
            elif encoding == "OneBlob":
                inputs = one_blob(inputs, n_bins)
            return network(matrices, inputs)

        def loss(params, inputs, targets):
            y = outputs(params, inputs)
            return jnp.mean((y - targets) ** 2 / (lax.stop_gradient(y) ** 2 + LOSS_EPSILON))

        @partial(jax.jit, donate_argnums=0)
        def training_step(state, inputs, targets):
            params, (first, second), n_steps = state
            value, gradients = jax.value_and_grad(loss)(params, inputs, targets)
            dl_dmatrices, dl_dtable = gradients
            decayed = [g + job.l2_reg * m for g, m in zip(dl_dmatrices, params[0], strict=True)]
            gradients = decayed, dl_dtable
            n_steps = n_steps + 1
            first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
            second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
            scale1, scale2 = 1 - BETA1**n_steps, 1 - BETA2**n_steps

            def update(param, m, v):
                return param - LEARNING_RATE * (m / scale1) / (jnp.sqrt(v / scale2) + job.epsilon)

            params = jax.tree.map(update, params, first, second)
            return (params, (first, second), n_steps), value

        self.training_step, self.outputs = training_step, jax.jit(outputs)

    def versions(self):
        return {"jax": jax.__version__}

    def place(self, array):
        return jnp.array(array)

    def wait(self, result):
        return jax.block_until_ready(result)

    def step(self, inputs, targets):
        self.state, value = self.training_step(self.state, inputs, targets)
        return value

    def inference(self, inputs):
        return self.outputs(self.state[0], inputs)
