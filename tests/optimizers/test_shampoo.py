"""Shampoo: roots, convergence, and what is particular to it; the laws compare it with its twin."""

from dataclasses import replace

import laws
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numbanet.cpu import operations
from numbanet.cpu.engine import optimize
from numbanet.optimizers import Adam, Shampoo
from numbanet.optimizers.base import ParamLayout
from numbanet.optimizers.inverse_root import inverse_fourth_root
from numbanet.registry import create

SHAPE = (8, 12)
LAYOUT = ParamLayout(96, (SHAPE,))


def rotation(n, rng):
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


@settings(max_examples=30)
@given(st.integers(1, 33), st.floats(0, 5), st.floats(-6, 6), st.integers(0, 99))
def test_the_inverse_root_is_that_of_eigenvalues(n, decades, magnitude, seed):
    """For conditions up to 10^5, which float32 can tell from a singular matrix."""
    rng = np.random.default_rng(seed)
    values = 10 ** (magnitude - decades * rng.random(n))
    vectors = rotation(n, rng)
    matrix = ((vectors * values) @ vectors.T).astype(np.float32)
    share = 1e-6 * np.linalg.norm(matrix, 2)
    root = np.zeros((n, n), np.float32)
    inverse_fourth_root(operations, matrix, root, share)
    damped = (1 - share) * matrix.astype(np.float64) + share * np.eye(n)
    values, vectors = np.linalg.eigh(damped)
    laws.assert_close(root, (vectors * values**-0.25) @ vectors.T, 2e-2)


def test_a_root_that_overflows_is_left_alone():
    root = np.full((3, 3), 7, np.float32)
    inverse_fourth_root(operations, np.full((3, 3), np.inf, np.float32), root, 0.01)
    np.testing.assert_array_equal(root, 7)


def loss_after(optimizer, n_steps, seed):
    """Of linear regression, where neither inputs nor outputs lie along the axes."""
    rng = np.random.default_rng(seed)
    inputs, outputs = (rotation(n, rng) * np.geomspace(1, 0.1, n) for n in SHAPE[::-1])
    inputs, outputs = inputs @ inputs.T, outputs @ outputs.T
    target = rng.normal(size=SHAPE)
    weights = np.zeros(96, np.float32)
    state, matrices = optimizer.initial_state(weights), np.zeros((2, 1), np.float32)
    statistics = np.zeros(optimizer.n_statistics(LAYOUT), np.float32)
    for t in range(1, n_steps + 1):
        slope = 2 * outputs @ (weights.reshape(SHAPE) - target) @ inputs
        gradient = slope.reshape(-1).astype(np.float32)
        optimize(optimizer, LAYOUT, t, weights, gradient, state, matrices, statistics)
    difference = weights.reshape(SHAPE) - target
    return np.sum(difference * (outputs @ difference @ inputs))


def loss_at_the_best_rate(optimizer):
    """The geometric mean over five problems after 50 steps."""
    return min(
        np.exp(
            np.mean(
                [
                    np.log(loss_after(replace(optimizer, learning_rate=rate), 50, seed))
                    for seed in range(5)
                ]
            )
        )
        for rate in (0.06, 0.1, 0.18, 0.3, 0.56, 1.0)
    )


def test_converges_faster_than_adam():
    adam = min(
        loss_at_the_best_rate(Adam(beta1=beta1, beta2=0.99, l2_reg=0.0)) for beta1 in (0.5, 0.9)
    )
    shampoo = loss_at_the_best_rate(
        Shampoo(beta1=0.5, beta3=0.99, beta_shampoo=0.0, identity=0.1, l2_reg=0.0)
    )
    assert shampoo < adam / 2


def test_no_matrix_moves_at_the_first_step():
    """There are no roots of earlier gradients yet; what is no matrix moves."""
    layout = ParamLayout(100, (SHAPE,))
    for normalizes in (True, False):
        optimizer = Shampoo(
            0.5, relative_decay=0.1, absolute_decay=0.1, frobenius_normalization=normalizes
        )
        steps = laws.Steps(optimizer, layout, np.ones(100))
        steps.step(np.ones(100))
        np.testing.assert_array_equal(steps.weights[:96], 1)
        assert (steps.weights[96:] < 1).all()
        steps.step(np.ones(100))
        assert (steps.weights < 1).all()


def test_a_normalized_step_is_as_long_as_that_of_the_momentum():
    optimizer = Shampoo(0.5, l2_reg=0.0)
    steps = laws.Steps(optimizer, LAYOUT, np.zeros(96))
    rng = np.random.default_rng(0)
    for t in range(4):
        before = steps.weights.copy()
        steps.step(rng.normal(size=96))
        length = np.linalg.norm(steps.weights - before)
        expected = 0.5 * np.linalg.norm(steps.state[2]) if t else 0.0
        np.testing.assert_allclose(length, expected, rtol=1e-5)


def test_roots_are_new_when_they_are_due():
    steps = laws.Steps(Shampoo(), LAYOUT, np.zeros(96))
    rng = np.random.default_rng(0)
    changed = []
    for t in range(1, 32):
        before = steps.statistics[
            64:128
        ].copy()  # the root of the first of L, L's root, R, R's root
        steps.step(rng.normal(size=96))
        if (steps.statistics[64:128] != before).any():
            changed.append(t)
    assert changed == [1, 10, 20, 30]


def test_defaults():
    made = create("optimizer", {"otype": "shampoo"}, default="none")
    assert made == Shampoo(1e-3, 0.9, 0.99, 0.9, 0.9, 1e-8, 0.01, True, 1e-5, 0.0, 0.0, True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("beta1", 1.0),
        ("beta_shampoo", -0.1),
        ("identity", 0.0),
        ("identity", 1.5),
        ("l2_reg", -1.0),
    ],
)
def test_wrong_values(option, value):
    with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use "):
        Shampoo(**{option: value})


def test_statistics_need_what_uses_them():
    forgetful = type("Forgetful", (Adam,), {"n_statistics": lambda self, layout: 1})()
    with pytest.raises(TypeError, match="Forgetful has n_statistics > 0; it must define precon"):
        forgetful.precondition(operations, LAYOUT, *[None] * 4)
