"""Losses against their formulas in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import numbanet
from numbanet.losses import (
    L1,
    L2,
    MAPE,
    SMAPE,
    CrossEntropy,
    Huber,
    LogL1,
    RelativeL1,
    RelativeL2,
    RelativeL2Luminance,
    Variance,
)
from numbanet.registry import ConfigError, create

# Formula with the normalisation as an argument, and what the normalisation is.
FORMULAS = {
    L1(): (lambda d, scale: abs(d) / scale, lambda p: 1.0),
    L2(): (lambda d, scale: d**2 / scale, lambda p: 1.0),
    RelativeL2(): (lambda d, scale: d**2 / scale, lambda p: p**2 + 0.01),
}
numbers = st.floats(-5, 5, width=32)
pdfs = st.floats(0.0625, 2, width=32)
losses = pytest.mark.parametrize("loss", FORMULAS, ids=lambda loss: loss.otype)


@losses
@given(p=numbers, t=numbers, pdf=pdfs)
def test_value_and_gradient(loss, p, t, pdf):
    value, gradient = loss.value_and_gradient(np.float32(p), np.float32(t), np.float32(pdf))
    formula, normalisation = FORMULAS[loss]
    scale = normalisation(p) * pdf
    d = float(np.float32(p) - np.float32(t))
    np.testing.assert_allclose(value, formula(d, scale), rtol=1e-5, atol=1e-30)
    # The normalisation counts as a constant, so it stays what it is at p.
    step = 1e-6 * max(abs(d), 1e-3)
    slope = (formula(d + step, scale) - formula(d - step, scale)) / (2 * step)
    if loss == L1():
        slope = np.copysign(1 / scale, d)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6 / scale)


@losses
@pytest.mark.parametrize(("p", "t"), [(0.0, 0.0), (-3.0, -3.0)])
def test_a_perfect_prediction_costs_nothing(loss, p, t):
    value, gradient = loss.value_and_gradient(np.float32(p), np.float32(t), np.float32(1))
    assert value == 0
    assert gradient == (1 if loss == L1() else 0)  # copysign(1, +0) is 1


def test_relative_l2_looks_at_the_prediction():
    value, gradient = RelativeL2().value_and_gradient(np.float32(2), np.float32(1), np.float32(0.5))
    np.testing.assert_allclose([value, gradient], [1 / 4.01 / 0.5, 2 / 4.01 / 0.5], rtol=1e-6)


@losses
@pytest.mark.parametrize("has_pdf", [False, True])
def test_a_row_adds_up_its_elements(loss, has_pdf):
    rng = np.random.default_rng(1)
    p, t = rng.normal(size=(2, 5)).astype(np.float32)
    pdf = rng.uniform(0.1, 2, 5).astype(np.float32)
    gradient = np.full(7, 99, np.float32)
    total = loss.row(5, has_pdf)(p, t, pdf, gradient)
    elements = [
        loss.value_and_gradient(p[k], t[k], pdf[k] if has_pdf else np.float32(1)) for k in range(5)
    ]
    np.testing.assert_allclose(total, sum(value for value, _ in elements), rtol=1e-5)
    np.testing.assert_allclose(gradient[:5], [slope for _, slope in elements], rtol=1e-6)
    assert (gradient[5:] == 99).all()


@losses
def test_losses_have_no_options(loss):
    assert create("loss", {"otype": loss.otype}, default="RelativeL2") == loss


def value_and_gradient(loss, p, t, pdf):
    return loss.value_and_gradient(np.float32(p), np.float32(t), np.float32(pdf))


@pytest.mark.parametrize(
    ("loss", "p", "t", "pdf", "value", "gradient"),
    [
        (RelativeL1(), -1.99, 1.0, 0.5, 2.99, -1.0),
        (MAPE(), 3.0, -0.99, 0.5, 7.98, 2.0),
        (SMAPE(), -1.0, 0.98, 2.0, 0.99, -0.5),
        (CrossEntropy(), np.exp(-2), 3.0, 1.5, 4.0, -2 * np.exp(2)),
        (CrossEntropy(), 1.0, 0.0, 1.0, 0.0, 0.0),
        (Variance(), 0.5, 3.0, 2.0, 6.75, -18.0),
        (Variance(), 4.0, 3.0, 2.0, -1.125, -0.28125),
        (Huber(), 1.5, 1.0, 0.5, 0.25, 1.0),
        (Huber(), -3.0, 1.0, 0.5, 7.0, -2.0),
        (Huber(0.25), 1.0, 0.0, 1.0, 0.21875, 0.25),
        (LogL1(), -3.0, 1.0, 2.0, np.log(5) / 2, -0.1),
    ],
    ids=str,
)
def test_known_values(loss, p, t, pdf, value, gradient):
    actual = value_and_gradient(loss, p, t, pdf)
    np.testing.assert_allclose(actual, [value, gradient], rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("loss", [L1(), RelativeL1(), MAPE(), SMAPE(), LogL1()], ids=str)
def test_gradient_at_zero_is_that_from_above(loss):
    assert value_and_gradient(loss, 1, 1, 1)[0] == 0
    assert value_and_gradient(loss, 1, 1, 1)[1] > 0


@pytest.mark.parametrize("loss", [CrossEntropy(), Variance()], ids=str)
@pytest.mark.parametrize("p", [-1.0, -1e-20, 0.0, 1e-20])
def test_densities_that_are_not_positive_are_very_small_ones(loss, p):
    """So that the gradient is finite, and pushes the density up."""
    actual = value_and_gradient(loss, p, 2, 0.5)
    assert actual == value_and_gradient(loss, 1e-15, 2, 0.5)
    assert np.isfinite(actual).all()
    assert actual[1] < 0


@pytest.mark.parametrize("difference", [0.0, 1e-12, 1e-6, 1e-3, 0.3, 1.0, 40.0, 1e6, 1e30])
def test_log_l1_is_relatively_exact(difference):
    value, _ = value_and_gradient(LogL1(), difference, 0, 1)
    np.testing.assert_allclose(value, np.log1p(np.float64(np.float32(difference))), rtol=4e-7)


def luminance_row(prediction, target):
    gradient = np.empty_like(prediction)
    return RelativeL2Luminance().row(len(target), False)(prediction, target, target, gradient)


def test_luminance_is_that_of_the_first_colour_or_of_two():
    weights = np.array([0.299, 0.587, 0.114])
    rng = np.random.default_rng(0)
    for n in (3, 4, 5, 6, 7):
        p, t = rng.normal(size=(2, n)).astype(np.float32)
        luminance = weights @ (p[:3] + p[3:6] if n >= 6 else p[:3]).astype(np.float64)
        expected = ((p - t).astype(np.float64) ** 2).sum() / (luminance**2 + 0.01)
        np.testing.assert_allclose(luminance_row(p, t), expected, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2])
def test_luminance_needs_three_channels(n):
    with pytest.raises(ConfigError, match=rf"^loss\.otype: .*needs 3 outputs or more, not {n}"):
        RelativeL2Luminance().row(n, False)
    with pytest.raises(ConfigError, match="needs 3 outputs"):
        numbanet.create_from_config(2, n, {"loss": {"otype": "RelativeL2Luminance"}})


@pytest.mark.parametrize("delta", [0, -1, "wide"])
def test_huber_needs_a_positive_delta(delta):
    with pytest.raises(ConfigError, match=r"^loss\.delta"):
        create("loss", {"otype": "Huber", "delta": delta}, default="none")


def test_relative_l2_is_the_default():
    assert create("loss", {}, default="RelativeL2") == RelativeL2()
