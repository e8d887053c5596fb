"""Constructs of device functions that users write, and what tracing makes of them."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from numbanet.device import ONE, ZERO, device, local_array
from numbanet.encodings.base import AbstractEncoding
from numbanet.exports.program import For, If, blocks_of
from numbanet.exports.traced import program_of
from numbanet.registry import derived

TABLE = (np.float32(0.5), np.float32(-1.5), np.float32(2.5))


@dataclass(frozen=True)
class Strange(AbstractEncoding):
    """Computes in float64, which no shader has."""

    n_dims: int = derived()

    @property
    def n_outputs(self):
        return self.n_dims

    @property
    def forward(self):
        n_dims = self.n_dims

        @device
        def strange(x, params, y):
            for d in range(n_dims):
                y[d] = math.sin(np.float64(x[d]) * 3.0)

        return strange

    @property
    def backward_input(self):
        raise NotImplementedError

    @property
    def double_backward_input(self):
        raise NotImplementedError


@device
def early(x):
    if x < ZERO:
        return -x
    if x > ONE:
        return x * x
    return x


@dataclass(frozen=True)
class Branching(Strange):
    """Branches, loops with an end known at run time, tables, breaks, math and NumPy functions."""

    @property
    def n_outputs(self):
        return 6

    @property
    def forward(self):
        @device
        def branching(x, params, y):
            y[0] = early(x[0])
            total, k = ZERO, 0
            while total < np.float32(2.0):
                total += x[1] + np.float32(0.25)
                k += 1
            y[1] = np.float32(k)
            row = local_array(40)
            for j in range(40):
                row[j] = np.float32(j) * x[0]
            y[2] = row[int(np.float32(39.0) * x[1])]
            y[3] = TABLE[int(np.float32(2.9) * x[1])] + np.float32(math.floor(x[0]))
            found = ZERO
            for j in range(6):
                if np.float32(j) > x[1] * np.float32(5.0):
                    break
                found += np.float32(j)
            y[4] = found
            low, high = x[0], x[1]
            if low > high:
                low, high = high, low
            y[5] = max(high - low, np.sqrt(abs(low)))

        return branching


def expected(x):
    a, b = x.astype(np.float64).T
    first = np.where(a < 0, -a, np.where(a > 1, a * a, a))
    count = np.ceil(2.0 / (b + 0.25))
    third = (39.0 * x[:, 1]).astype(int) * a
    table = np.array(TABLE)[(np.float32(2.9) * x[:, 1]).astype(int)] + np.floor(a)
    steps = np.floor(b * 5).astype(int)
    low, high = np.minimum(a, b), np.maximum(a, b)
    last = np.maximum(high - low, np.sqrt(np.abs(low)))
    return np.stack([first, count, third, table, steps * (steps + 1) / 2, last], 1)


def test_users_code_is_translated(tmp_path):
    import c_program
    import exported_models as models
    from test_c import outputs

    if not c_program.COMPILERS:
        pytest.skip("needs gcc or clang")
    rng = np.random.default_rng(3)
    x = np.stack([rng.uniform(-2, 2, 50), rng.uniform(0.01, 0.99, 50)], 1).astype(np.float32)
    example = models.Example(Branching(n_dims=2), None, [])
    found = outputs(example, x, folder=tmp_path)
    models.assert_agrees(found, expected(x), 1e-5)


def kinds(body):
    return [type(each) for each in body] + [k for s in body for b in blocks_of(s) for k in kinds(b)]


def test_large_loops_stay_loops_and_small_ones_do_not():
    import exported_models as models

    network = {"n_neurons": 64, "n_hidden_layers": 1}
    example, _ = models.network_example({"otype": "Identity"}, 2, 3, network)
    program = program_of(example)
    assert For in kinds(program.body)
    assert len(kinds(program.body)) < 250
    example, _ = models.encoding_example("SphericalHarmonics", 0)
    assert not {For, If} & set(kinds(program_of(example).body))
