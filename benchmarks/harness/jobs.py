"""Jobs to measure: sizes, data, initial parameters, and their results in float64.

Uses NumPy only and nothing of numbanet. The output matrix has as many rows as there are outputs
(numbanet pads it to 16, which adds work but no information).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.harness.grid import N_ENTRIES, N_FEATURES
from benchmarks.harness.photograph import Photograph
from benchmarks.harness.reference import Reference, initial_params
from benchmarks.harness.samples import HASH, IMAGE, ONE_BLOB

N_BINS = ONE_BLOB["encoding"]["n_bins"]


@dataclass(frozen=True, eq=False)
class Job:
    """An encoding with a ReLU network; where n_inputs is 2, it learns a photograph."""

    config: dict  # as numbanet and tiny-cuda-nn read it
    n_inputs: int
    n_outputs: int
    n_features: int

    @property
    def encoding(self):
        return self.config["encoding"]["otype"]

    @property
    def epsilon(self):
        return self.config["optimizer"]["epsilon"]

    @property
    def l2_reg(self):
        return self.config["optimizer"]["l2_reg"]

    @cached_property
    def shapes(self):
        network = self.config["network"]
        hidden = [network["n_neurons"]] * network["n_hidden_layers"]
        widths = [self.n_features, *hidden, self.n_outputs]
        return tuple(zip(widths[1:], widths[:-1], strict=True))

    @cached_property
    def n_network(self):
        return sum(map(math.prod, self.shapes))

    @property
    def n_entries(self):
        return N_ENTRIES if self.encoding == "HashGrid" else 0

    @property
    def n_params(self):
        return self.n_network + N_FEATURES * self.n_entries

    def initial_params(self, table_scale=1e-4):
        return initial_params(table_scale, self.shapes, self.n_entries)

    def padded(self, params, n):
        """The parameters of a network whose outputs are padded, so that they are n in all."""
        network, table = np.split(params, [self.n_network])
        return np.concatenate([network, np.zeros(n - params.size, np.float32), table])

    def unpadded(self, params):
        n_padding = params.size - self.n_params
        return np.delete(params, np.s_[self.n_network : self.n_network + n_padding])

    @cached_property
    def photograph(self):
        return Photograph(IMAGE)

    def batch(self, n, rng):
        """Return inputs and targets."""
        if self.n_inputs == 2:
            return self.photograph.batch(n, rng)
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
        """Operations of the matrix products without padding; a step makes each of them three times.

        But for the gradient of the features, which only a grid needs.
        """
        products = 3 * self.n_network if kind == "training" else self.n_network
        if kind == "training" and self.n_entries == 0:
            products -= math.prod(self.shapes[0])
        return 2 * products * n

    def bytes(self, kind, n):
        """Bytes of samples and parameters: halves read; gradients, weights, moments of a step."""
        per_param = 2 + 8 + 8 + 16 + 2 if kind == "training" else 2
        return 4 * (self.n_inputs + self.n_outputs) * n + per_param * self.n_params


def one_blob(positions):
    """Return the integrals of a quartic blob around each coordinate over 64 wrapped bins."""
    edges = np.arange(-N_BINS, 2 * N_BINS + 1)
    u = np.clip(edges - N_BINS * positions.astype(np.float64)[:, :, None], -1, 1)
    integral = 0.5 + u * (15 / 16 + u**2 * (3 / 16 * u**2 - 5 / 8))
    bins = np.diff(integral).reshape(*positions.shape, 3, N_BINS)
    return bins.sum(axis=2).reshape(len(positions), -1)


def plain(n_neurons):
    network = {**HASH["network"], "n_neurons": n_neurons, "n_hidden_layers": 3}
    return Job({**HASH, "encoding": {"otype": "Identity"}, "network": network}, 32, 32, 32)


JOBS = {
    "config_hash": Job(HASH, 2, 3, 32),
    "config_oneblob": Job(ONE_BLOB, 2, 3, 2 * N_BINS),
    "mlp_64": plain(64),
    "mlp_128": plain(128),
}
