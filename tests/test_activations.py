"""Activations and the functions below them against float64 NumPy."""

import dataclasses
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

import numbanet
from numbanet import device
from numbanet.activations import activation
from numbanet.kernel_cache import compile_cached
from numbanet.registry import registered


def log_one_plus_exp(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


FORMULAS = {
    "None": lambda x: x,
    "ReLU": lambda x: np.where(x > 0, x, 0),
    "LeakyReLU": lambda x: np.where(x > 0, x, 0.01 * x),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "Exponential": np.exp,
    "Sine": np.sin,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Squareplus": lambda x: (10 * x + np.sqrt((10 * x) ** 2 + 4)) / 20,
    "Softplus": lambda x: log_one_plus_exp(10 * x) / 10,
    "Tanh": np.tanh,
}
X = np.linspace(-8, 8, 4000).astype(np.float32)  # no multiple of the step is 0, where ReLU kinks
names = pytest.mark.parametrize("name", FORMULAS)


def over(function):
    """The device function on every element of arrays, compiled as in a kernel and kept on disk."""

    def one(a, result):
        for i in range(a.shape[0]):
            result[i] = function(a[i])

    def two(a, b, result):
        for i in range(a.shape[0]):
            result[i] = function(a[i], b[i])

    loops = [compile_cached(each, fastmath=True) for each in (one, two)]

    def run(*arrays):
        result = np.empty_like(arrays[0])
        loops[len(arrays) - 1](*arrays, result)
        return result

    run.loop = one
    return run


ACTIVATIONS = {name: activation(name) for name in registered("activation")}


@pytest.fixture(scope="module")
def compiled():
    """Forward, backward and second derivative of each activation over arrays, compiled once."""
    return {
        name: (over(found.forward), over(found.backward), over(found.second))
        for name, found in ACTIVATIONS.items()
    }


def test_the_table_is_complete():
    assert list(ACTIVATIONS) == list(FORMULAS)
    assert {name for name, found in ACTIVATIONS.items() if found.from_input} == {"SiLU", "Sine"}
    assert all(found.name == name for name, found in ACTIVATIONS.items())


@names
def test_forward_is_the_formula(compiled, name):
    expected = FORMULAS[name](X.astype(np.float64))
    np.testing.assert_allclose(compiled[name][0](X), expected, rtol=5e-7, atol=3e-7)


@names
def test_backward_is_the_slope(compiled, name):
    forward, backward, _ = compiled[name]
    step = 1e-5
    x = X.astype(np.float64)
    slope = (FORMULAS[name](x + step) - FORMULAS[name](x - step)) / (2 * step)
    dl_dy = np.linspace(-2, 3, len(X)).astype(np.float32)
    kept = X if ACTIVATIONS[name].from_input else forward(X)
    np.testing.assert_allclose(backward(dl_dy, kept), dl_dy * slope, rtol=1e-5, atol=2e-6)


@names
def test_second_is_the_slope_of_the_slope(compiled, name):
    forward, _, second = compiled[name]
    step = 1e-4
    x = X.astype(np.float64)
    formula = FORMULAS[name]
    bend = (formula(x + step) - 2 * formula(x) + formula(x - step)) / step**2
    kept = X if ACTIVATIONS[name].from_input else forward(X)
    far_from_kink = (np.abs(X) > step) | (name not in ("ReLU", "LeakyReLU"))
    actual = second(kept)[far_from_kink]
    np.testing.assert_allclose(actual, bend[far_from_kink], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["Softplus", "Squareplus", "Sigmoid", "Tanh", "Exponential"])
def test_small_outputs_are_relatively_exact(compiled, name):
    """No cancellation: the tails matter as densities."""
    x = np.linspace(-1e-3, 1e-3, 501) if name == "Tanh" else np.linspace(-8, -3, 501)
    x = x[x != 0].astype(np.float32)
    expected = {
        "Softplus": lambda x: np.log1p(np.exp(10 * x)) / 10,
        "Squareplus": lambda x: 0.2 / (np.sqrt(100 * x * x + 4) - 10 * x),
    }.get(name, FORMULAS[name])(x.astype(np.float64))
    rtol = 6e-6 if name == "Softplus" else 1e-6  # its exponent is rounded: 80 has steps of 8e-6
    np.testing.assert_allclose(compiled[name][0](x), expected, rtol=rtol)


FAR = [float(np.float32(10) ** np.float32(k)) for k in (2, 5, 9, 18, 19, 30, 38)] + [3.4e38]


@names
def test_far_inputs_are_right(compiled, name):
    """Every finite float32 has a finite output, and finite derivatives that are right."""
    forward, backward, second = compiled[name]
    x = np.array([*(-k for k in reversed(FAR)), *FAR], np.float32)
    y = forward(x)
    kept = x if ACTIVATIONS[name].from_input else y
    slope = backward(np.ones_like(x), kept)
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()
    assert np.isfinite(second(kept)).all()
    if name == "Sine":
        near = np.abs(x) <= 1e5
        np.testing.assert_allclose(y[near], np.sin(x[near].astype(np.float64)), atol=2e-7)
        assert (np.abs(y) <= 1 + 1e-6).all()
        assert (np.abs(slope) <= 1 + 1e-6).all()
    elif name != "Exponential":
        wide, is_high = x.astype(np.float64), x > 0
        limits = {"Sigmoid": is_high, "Tanh": np.sign(wide), "None": wide}
        limits["LeakyReLU"] = np.where(is_high, wide, 0.01 * wide)
        expected = limits.get(name, np.where(is_high, wide, 0))
        if name == "Squareplus":
            expected = np.where(is_high, wide, 0.01 / np.abs(wide))
            low = (np.abs(x) > 1e4) & (np.abs(x) < 1e34)  # further out there are denormals
            np.testing.assert_allclose(y[low], expected[low], rtol=1e-6)
        np.testing.assert_allclose(y, expected, rtol=1e-6, atol=2e-4)
        slopes = {"None": 1, "LeakyReLU": np.where(is_high, 1, 0.01), "Sigmoid": 0, "Tanh": 0}
        np.testing.assert_allclose(slope, slopes.get(name, is_high), atol=2e-6)
        np.testing.assert_allclose(second(kept), 0, atol=2e-5)


@names
def test_a_nan_stays_one(compiled, name):
    x = np.array([0.5, np.nan, -0.5, np.nan, *range(9)], np.float32)
    y = compiled[name][0](x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


@names
def test_forward_vectorises(compiled, name):
    """A call or a branch in the loop would make the scalar code ten times slower."""
    loop = njit(fastmath=True, error_model="numpy")(compiled[name][0].loop)
    loop(X, np.empty_like(X))
    (code,) = loop.inspect_llvm().values()
    assert re.search(r"store <\d+ x (float|i32)>", code)


@pytest.mark.parametrize("spelling", ["relu", "RELU", "ReLU", " Re LU"])
def test_names_have_no_case_and_no_spaces(spelling):
    assert activation(spelling) is ACTIVATIONS["ReLU"]


def test_leaky_relu_may_be_two_words():
    assert activation("Leaky ReLU") is ACTIVATIONS["LeakyReLU"]


@names
def test_activations_are_pickled_by_name(name):
    pickled = pickle.dumps(ACTIVATIONS[name])
    assert len(pickled) < 100
    assert pickle.loads(pickled) is ACTIVATIONS[name]


@pytest.mark.parametrize("name", ["GELU", "", None, 3, ["ReLU"]])
def test_an_unknown_name_lists_what_exists(name):
    with pytest.raises(ValueError, match=r"output_activation: .*None, ReLU, LeakyReLU.*Tanh"):
        activation(name, "output_activation")


# The elementary functions that they are made of


@pytest.mark.parametrize(
    ("function", "formula", "low", "high"),
    [
        (device.exp, np.exp, -87, 88),
        (device.exp_minus_one, np.expm1, -87, 88),
        (device.exp_minus_one, np.expm1, -1e-3, 1e-3),
    ],
)
def test_exponentials_are_relatively_exact(function, formula, low, high):
    x = np.linspace(low, high, 200_000).astype(np.float32)
    np.testing.assert_allclose(over(function)(x), formula(x.astype(np.float64)), rtol=2e-7)


def test_logarithms_are_exact():
    x = np.exp(np.linspace(-87, 88, 200_000)).astype(np.float32)
    expected = np.log(x.astype(np.float64))
    np.testing.assert_allclose(over(device.log)(x), expected, rtol=3e-7)
    near_one = np.linspace(0.5, 2, 200_001).astype(np.float32)
    expected = np.log(near_one.astype(np.float64))
    np.testing.assert_allclose(over(device.log)(near_one), expected, rtol=4e-7)
    expected = np.log1p(x.astype(np.float64))
    np.testing.assert_allclose(over(device.log_one_plus)(x), expected, rtol=4e-7)
    assert over(device.log)(np.zeros(1, np.float32)) < -87


def test_exp_clamps():
    y = over(device.exp)(np.array([-np.inf, -1e30, -200, 200, 1e30, np.inf], np.float32))
    assert (y[:3] == y[0]).all()
    assert 0 < y[0] < 2e-38
    assert (y[3:] == y[3]).all()
    assert 2e38 < y[3] < np.inf


@pytest.mark.parametrize(("function", "formula"), [(device.sin, np.sin), (device.cos, np.cos)])
@pytest.mark.parametrize("reach", [4.0, 1e2, 1e4, 1e5])
def test_sine_and_cosine_reduce_their_argument(function, formula, reach):
    x = np.linspace(-reach, reach, 200_000).astype(np.float32)
    np.testing.assert_allclose(over(function)(x), formula(x.astype(np.float64)), atol=2e-7, rtol=0)


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.booleans())
def test_select_is_a_conditional_expression(a, b, condition):
    assert select(condition, np.float32(a), np.float32(b)) == (a if condition else b)


@device.device
def select(condition, a, b):
    return device.select(condition, a, b)


@pytest.mark.parametrize("otype", ["FullyFusedMLP", "CutlassMLP"])
def test_none_is_a_name_of_no_activation(otype):
    """As Python and JSON write it."""
    config = {"otype": otype, "n_neurons": 16, "n_hidden_layers": 1}
    plain = numbanet.create_network(2, 3, config, device="cpu").network
    config |= {"activation": None, "output_activation": None}
    network = numbanet.create_network(2, 3, config, device="cpu").network
    assert network.output_activation == network.activation == "None"
    assert plain == dataclasses.replace(network, activation="ReLU")
    expected = r"^network\.output_activation: expected str"
    for value in (7, ["ReLU"], True):
        with pytest.raises(numbanet.ConfigError, match=expected):
            numbanet.create_network(2, 3, {**config, "output_activation": value}, device="cpu")
    with pytest.raises(numbanet.ConfigError, match=r"^network.*activation: ''"):
        numbanet.create_network(2, 3, {**config, "activation": ""}, device="cpu")
