"""Losses against their formulas in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.losses import L1, L2, RelativeL2
from numbanet.registry import create

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


def test_relative_l2_is_the_default():
    assert create("loss", {}, default="RelativeL2") == RelativeL2()
