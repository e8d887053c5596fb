"""Adam against its definition in float64, option by option."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from numbanet.kernel_cache import compile_cached
from numbanet.optimizers import Adam
from numbanet.optimizers.base import ParamLayout
from numbanet.optimizers.packed_moments import unpacked
from numbanet.registry import ConfigError, create

LAYOUT = ParamLayout(48, ((4, 4), (2, 4)))  # 24 matrix parameters and 24 others
IS_MATRIX = np.arange(48) < 24


def shrink(relative, absolute, w):
    return (1 - relative) * w - np.copysign(absolute, w)


class Reference:
    """One parameter after the other, as the definition has it."""

    def __init__(self, optimizer, weights):
        self.o = optimizer
        self.w = weights.astype(np.float64)
        self.m, self.v, self.k = np.zeros((3, len(weights)))
        self.largest = np.zeros(len(weights))  # gradient so far
        self.t = 0

    def step(self, gradients):
        self.t += 1
        for i, g in enumerate(gradients.astype(np.float64)):
            self.update(i, g)

    def update(self, i, g):
        o, w = self.o, self.w[i]
        rate = o.learning_rate
        if IS_MATRIX[i]:
            if not o.optimize_matrix_params:
                return
            g += o.l2_reg * w
        else:
            skips = o.skip_zero_grad_non_matrix_params and g == 0
            if skips or not o.optimize_non_matrix_params:
                return
            g += o.non_matrix_l2_reg * w
            rate *= o.non_matrix_learning_rate_factor
        if o.gradient_clipping_magnitude:
            g = np.copysign(min(abs(g), o.gradient_clipping_magnitude), g)
        self.largest[i] = max(abs(g), self.largest[i])
        self.m[i] = o.beta1 * self.m[i] + (1 - o.beta1) * g
        self.v[i] = o.beta2 * self.v[i] + (1 - o.beta2) * g * g
        self.k[i] += 1
        rate *= np.sqrt(1 - o.beta2 ** self.k[i]) / (1 - o.beta1 ** self.k[i])
        root = np.sqrt(self.v[i]) + o.epsilon
        effective = rate / root if root else 0.0
        if o.adabound:
            span = (1 - o.beta2) * self.t
            effective = np.clip(effective, 0.1 - 0.1 / (span + 1), 0.1 + 0.1 / span)
        w = shrink(o.relative_decay * rate, o.absolute_decay * rate, w) - effective * self.m[i]
        if o.clipping_magnitude:
            w = np.clip(w, -o.clipping_magnitude, o.clipping_magnitude)
        self.w[i] = w


def loop_over(optimizer):
    """A step over all parameters, as a kernel runs it; to be compiled."""
    schedule, step, n_scalars = optimizer.schedule, optimizer.step(LAYOUT), optimizer.n_scalars

    def run(t, weights, gradients, state, hyperparams):
        scalars = np.empty(n_scalars, np.float32)
        schedule(t, hyperparams, scalars)
        for i in range(weights.shape[0]):
            weights[i] = step(np.uintp(i), weights[i], gradients[i], state, scalars, state)

    return run


@cache
def compiled(optimizer):
    return compile_cached(loop_over(optimizer), fastmath=True)


def train(optimizer, weights, all_gradients):
    """Weights and state after the last step."""
    run = compiled(optimizer)
    weights = weights.astype(np.float32)
    state = np.zeros((optimizer.n_state, len(weights)), np.float32)
    hyperparams = np.array(optimizer.hyperparams(), np.float32)
    for t, gradients in enumerate(all_gradients, 1):
        run(np.int32(t), weights, gradients, state, hyperparams)
    return weights, state


def random_problem(n_steps, seed=0):
    """Weights, and gradients of many magnitudes, a third of them 0, some of them always."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-5, 3, 48)
    gradients = rng.normal(size=(n_steps, 48)) * scale
    gradients[rng.random(gradients.shape) < 0.3] = 0
    gradients[:, ::5] = 0
    return rng.normal(size=48).astype(np.float32), gradients.astype(np.float32)


OPTIONS = (
    {},
    {"beta1": 0.5, "beta2": 0.8, "epsilon": 1e-15},
    {"beta1": 0.0, "beta2": 0.0},
    {"beta2": 0.9999},
    {"epsilon": 0.0, "l2_reg": 0.0},
    {"l2_reg": 0.1},
    {"non_matrix_l2_reg": 0.1},
    {"adabound": True},
    {"relative_decay": 0.1},
    {"absolute_decay": 0.1},
    {"clipping_magnitude": 0.5},
    {"gradient_clipping_magnitude": 0.01},
    {"non_matrix_learning_rate_factor": 0.25},
    {"non_matrix_learning_rate_factor": 0.0},
    {"optimize_matrix_params": False},
    {"optimize_non_matrix_params": False},
    {"skip_zero_grad_non_matrix_params": False},
    {
        "adabound": True,
        "relative_decay": 0.01,
        "absolute_decay": 0.02,
        "clipping_magnitude": 2.0,
        "gradient_clipping_magnitude": 5.0,
        "non_matrix_learning_rate_factor": 2.0,
        "non_matrix_l2_reg": 0.2,
        "skip_zero_grad_non_matrix_params": False,
    },
)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "defaults")
def test_every_option_is_that_of_the_definition(options):
    optimizer = Adam(learning_rate=0.05, **options)
    weights, all_gradients = random_problem(12)
    reference = Reference(optimizer, weights)
    for gradients in all_gradients:
        reference.step(gradients)
    after, (m, v, k) = train(optimizer, weights, all_gradients)
    np.testing.assert_allclose(after, reference.w, rtol=2e-5, atol=2e-6)
    assert (abs(m - reference.m) <= 2e-6 * reference.largest).all()  # its terms may cancel
    np.testing.assert_allclose(v, reference.v, rtol=2e-5, atol=1e-30)
    np.testing.assert_array_equal(k, reference.k)


def test_a_skipped_parameter_keeps_everything_bit_by_bit():
    weights, all_gradients = random_problem(3)
    optimizer = Adam(learning_rate=0.05, l2_reg=0.1, non_matrix_l2_reg=0.1)
    after, (_, _, k) = train(optimizer, weights, all_gradients)
    untouched = ~IS_MATRIX & (all_gradients == 0).all(axis=0)
    assert untouched.any()
    np.testing.assert_array_equal(after[untouched], weights[untouched])
    assert (k[untouched] == 0).all()
    assert (k[IS_MATRIX] == 3).all()
    np.testing.assert_array_equal(k[~IS_MATRIX], (all_gradients != 0).sum(axis=0)[~IS_MATRIX])


@given(st.floats(2.0**-60, 2.0**60, width=32), st.booleans())
def test_the_first_step_has_the_size_of_the_learning_rate(gradient, is_negative):
    """Whatever the gradient: m / sqrt(v) is its sign, once both are debiased."""
    gradient = np.float32(-gradient if is_negative else gradient)
    after, _ = train(FIRST, np.ones(48), np.full((1, 48), gradient))
    np.testing.assert_allclose(after, 1 - 0.125 * np.sign(gradient), rtol=1e-6)


FIRST = Adam(learning_rate=0.125, l2_reg=0.0, epsilon=0.0)


def test_debiasing_is_exact_for_a_long_memory():
    """1 - beta^k has no cancellation: beta2 = 0.99999 is 6e-8 from its neighbours in float32."""
    optimizer = Adam(learning_rate=0.125, beta1=0.9999, beta2=0.99999, l2_reg=0.0)
    after, _ = train(optimizer, np.zeros(48), np.full((20, 48), 3, np.float32))
    np.testing.assert_allclose(after, -20 * 0.125, rtol=1e-4)


def scalars_of(optimizer, t):
    scalars = np.empty(optimizer.n_scalars, np.float32)
    optimizer.schedule(np.int32(t), np.array(optimizer.hyperparams(), np.float32), scalars)
    return scalars


def test_moments_in_bfloat16_are_those_of_the_definition():
    """To the last place of bfloat16, where each is rounded once."""
    optimizer = Adam(learning_rate=0.05, moments="bfloat16")
    weights, all_gradients = random_problem(1)
    reference = Reference(optimizer, weights)
    reference.step(all_gradients[0])
    after, (both, k) = train(optimizer, weights, all_gradients)
    m, v = unpacked(both)
    np.testing.assert_allclose(after, reference.w, rtol=2e-5, atol=2e-6)
    np.testing.assert_allclose(m, reference.m, rtol=2.0**-7, atol=1e-30)
    np.testing.assert_allclose(v, reference.v, rtol=2.0**-7, atol=1e-30)
    np.testing.assert_array_equal(k, reference.k)
    untouched = ~IS_MATRIX & (all_gradients == 0).all(axis=0)
    assert not both[untouched].view(np.uint32).any()
    state = optimizer.state_of(reference.m, reference.v, reference.k)
    np.testing.assert_allclose(unpacked(state[0])[1], reference.v, rtol=2.0**-7, atol=1e-30)
    names = [name for name, *_ in optimizer.limits(LAYOUT, state, None, None)]
    assert names == [name for name, *_ in Adam().limits(LAYOUT, np.zeros((3, 48)), None, None)]


def test_moments_in_bfloat16_follow_slow_averages_without_bias():
    """A rate of 2^-12 is a 16th of their last place: rounded to the nearest, they stand still."""
    optimizer = Adam(learning_rate=0.0, beta2=1 - 2.0**-12, l2_reg=0.0, moments="bfloat16")
    gradients = np.full(48, 0.7, np.float32)
    steps = [gradients] * 3000 + [0.5 * gradients] * 3000
    _, (both, _) = train(optimizer, np.zeros(48), steps)
    first, kept = 1 - (1 - 2.0**-12) ** 3000, (1 - 2.0**-12) ** 3000
    exact = 0.49 * (first * kept + 0.25 * first)
    m, v = unpacked(both)
    assert v.mean() == pytest.approx(exact, rel=0.02)
    assert v.std() < 0.1 * exact
    assert m.mean() == pytest.approx(0.35, rel=0.01)


def test_adabound_ends_as_sgd():
    optimizer = Adam(adabound=True)
    rate, low, high = scalars_of(optimizer, 10**9)
    assert rate == np.float32(optimizer.learning_rate)
    np.testing.assert_allclose([low, high], 0.1, rtol=1e-5)
    assert scalars_of(optimizer, 1)[1] < 1e-3
    assert scalars_of(optimizer, 1)[2] > 10


def test_the_learning_rate_is_no_part_of_the_code():
    optimizer = Adam(learning_rate=0.125)
    assert scalars_of(optimizer, 5) == [0.125]
    assert optimizer.hyperparams() == (0.125,)
    assert optimizer.kernel_key() == replace(optimizer, learning_rate=7.0).kernel_key()
    assert optimizer.kernel_key() != replace(optimizer, beta1=0.8).kernel_key()


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(),
        Adam(adabound=True, absolute_decay=0.1, clipping_magnitude=1.0),
        Adam(moments="bfloat16"),
    ],
)
def test_the_step_vectorises(optimizer):
    """With one branch left in it the loop runs on single numbers, ten times slower."""
    run = njit(fastmath=True, error_model="numpy")(loop_over(optimizer))
    shapes = 48, 48, (optimizer.n_state, 48)
    weights, gradients, state = (np.zeros(shape, np.float32) for shape in shapes)
    run(np.int32(1), weights, gradients, state, np.ones(1, np.float32))
    (code,) = run.inspect_llvm().values()
    assert re.search(r"@llvm\.sqrt\.v\d+f32", code)


def test_defaults():
    made = create("optimizer", {}, default="Adam")
    assert made == Adam(1e-3, 0.9, 0.999, 1e-8, 1e-8)
    assert made.n_state == 3
    assert create("optimizer", {"moments": "bfloat16"}, default="Adam").n_state == 2
    assert made.inference_row is None


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("learning_rate", (-1.0, NAN, INF)),
        ("beta1", (-0.1, 1.0, NAN)),
        ("beta2", (-0.1, 1.5, NAN)),
        ("epsilon", (-1e-8, NAN, INF)),
        ("l2_reg", (-1.0, NAN, INF)),
        ("relative_decay", (-1.0, NAN, INF)),
        ("absolute_decay", (-1.0, NAN, INF)),
        ("clipping_magnitude", (-1.0, NAN, INF)),
        ("gradient_clipping_magnitude", (-1.0, NAN, INF)),
        ("non_matrix_learning_rate_factor", (-1.0, NAN, INF)),
        ("non_matrix_l2_reg", (-1.0, NAN, INF)),
    ],
)
def test_wrong_values(option, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use "):
            Adam(**{option: value})
        with pytest.raises(ConfigError, match=rf"^optimizer\.{option}: {value!r} is not allowed"):
            create("optimizer", {option: value}, default="Adam")
