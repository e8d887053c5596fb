"""The jobs that are measured on a GPU: sizes, data, initial parameters, a float64 reference.

Uses NumPy only and nothing of numbanet, as image_job.py does. Vectors of parameters hold the
matrices row by row, without padding, then the table of grid entries.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from image_job import (
    BETA1,
    BETA2,
    CONFIG,
    L2_REG,
    LEARNING_RATE,
    N_ENTRIES,
    N_FEATURES,
    Photograph,
    Reference,
    initial_params,
)

IMAGE = Path(__file__).parent.parent / "samples/images/astronaut.png"
N_BINS = 64


@dataclass(frozen=True)
class Job:
    """An encoding with a ReLU network; where n_inputs is 2, it learns a photograph."""

    encoding: str
    n_inputs: int
    n_outputs: int
    n_features: int
    n_neurons: int
    n_hidden_layers: int
    epsilon: float = 1e-15
    l2_reg: float = L2_REG

    @cached_property
    def config(self):
        """As numbanet and tiny-cuda-nn read it."""
        optimizer = {
            "otype": "Adam",
            "learning_rate": LEARNING_RATE,
            "beta1": BETA1,
            "beta2": BETA2,
            "epsilon": self.epsilon,
            "l2_reg": self.l2_reg,
        }
        encodings = {
            "HashGrid": CONFIG["encoding"],
            "OneBlob": {"otype": "OneBlob", "n_bins": N_BINS},
            "Identity": {"otype": "Identity"},
        }
        network = {"n_neurons": self.n_neurons, "n_hidden_layers": self.n_hidden_layers}
        return {
            "loss": CONFIG["loss"],
            "optimizer": optimizer,
            "encoding": encodings[self.encoding],
            "network": {**CONFIG["network"], **network},
        }

    @cached_property
    def shapes(self):
        hidden = [self.n_neurons] * self.n_hidden_layers
        widths = [self.n_features, *hidden, self.n_outputs]
        return tuple(zip(widths[1:], widths[:-1], strict=True))

    @cached_property
    def n_network(self):
        return sum(map(math.prod, self.shapes))

    @property
    def n_entries(self):
        return N_ENTRIES if self.encoding == "HashGrid" else 0

    def initial_params(self, table_scale=1e-4):
        return initial_params(1337, table_scale, self.shapes, self.n_entries)

    def padded(self, params, n):
        """The parameters of a network whose outputs are padded, so that they are n in all."""
        network, table = np.split(params, [self.n_network])
        return np.concatenate([network, np.zeros(n - params.size, np.float32), table])

    def batch(self, n, rng):
        """Return inputs and targets."""
        if self.n_inputs == 2:
            return Photograph(IMAGE).batch(n, rng)
        return rng.random((n, self.n_inputs), np.float32), np.zeros((n, self.n_outputs), np.float32)

    def reference(self, params, skips_zero_gradients):
        encode = {"HashGrid": None, "OneBlob": one_blob, "Identity": np.asarray}[self.encoding]
        return Reference(
            params,
            skips_zero_gradients,
            shapes=self.shapes,
            encode=encode,
            epsilon=self.epsilon,
            l2_reg=self.l2_reg,
        )

    # The least that must be done, per call

    def flops(self, kind, n):
        """Of the matrix products without padding; a step makes each of them three times.

        But for the gradient of the features, which only a grid needs.
        """
        products = 3 * self.n_network if kind == "training" else self.n_network
        if kind == "training" and self.n_entries == 0:
            products -= math.prod(self.shapes[0])
        return 2 * products * n

    def bytes(self, kind, n):
        """Of samples, and of parameters: halves to read; gradients, weights, moments of a step."""
        n_params = self.n_network + N_FEATURES * self.n_entries
        per_param = 2 + 8 + 8 + 16 + 2 if kind == "training" else 2
        return 4 * (self.n_inputs + self.n_outputs) * n + per_param * n_params


def one_blob(positions):
    """Return the integrals of a quartic blob around each coordinate over 64 wrapped bins."""
    edges = np.arange(-N_BINS, 2 * N_BINS + 1)
    u = np.clip(edges - N_BINS * positions.astype(np.float64)[:, :, None], -1, 1)
    integral = 0.5 + u * (15 / 16 + u**2 * (3 / 16 * u**2 - 5 / 8))
    bins = np.diff(integral).reshape(*positions.shape, 3, N_BINS)
    return bins.sum(axis=2).reshape(len(positions), -1)


JOBS = {
    "config_hash": Job("HashGrid", 2, 3, 32, 64, 2),
    "config_oneblob": Job("OneBlob", 2, 3, 2 * N_BINS, 128, 5, 1e-8, 1e-8),
    "mlp_64": Job("Identity", 32, 32, 32, 64, 3),
    "mlp_128": Job("Identity", 32, 32, 32, 128, 3),
}
