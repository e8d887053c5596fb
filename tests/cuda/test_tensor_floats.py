"""Products of float32 on tensor cores: as exact as multiply-adds, also where sums are cut off."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_matrix_product import (
    SIZES,
    Emulated,
    Matrix,
    assert_close,
    check_forward,
    check_weight_gradients,
    run_backward,
)

from emulator.ptx import matrix
from numbanet.activations import activation as act
from numbanet.cuda.chain import fma, tensor_floats
from numbanet.cuda.chain.matrix_product import MatrixProduct, products_for

PARTS, MULTIPLY_ADDS = (9, 0), (8, 9)  # compute capabilities
KINDS = "forward", "backward", "weights"


@pytest.fixture(scope="module")
def device():
    return Emulated(PARTS)


@pytest.fixture(scope="module")
def other():
    return Emulated(MULTIPLY_ADDS)


def cut_off(sums):
    """Float64 to float32 towards zero, as tensor cores do."""
    nearest = sums.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        beyond = np.abs(nearest.astype(np.float64)) > np.abs(sums)
    return np.where(beyond, np.nextafter(nearest, np.float32(0)), nearest)


def product(device, kind, a, b):
    """a @ b by one of the three products, which lay out a and b differently."""
    (n_rows, depth), n = a.shape, b.shape[1]
    products = MatrixProduct(device, "float32")
    if kind == "weights":
        pitch = -(-depth // 64) * 64
        left, right = Matrix(device, a, "float32", pitch), Matrix(device, b.T, "float32", pitch)
        result = Matrix(device, np.zeros((n_rows, n)), "float32")
        launch = products.weight_gradients(n_rows, n, depth, pitch)
        launch(left.address, right.address, result.address, 1.0)
        return result.values
    pitch = -(-n // 64) * 64
    weights = Matrix(device, a if kind == "forward" else a.T, "float32")
    right = Matrix(device, b, "float32", pitch)
    result = Matrix(device, np.zeros((n_rows, n)), "float32", pitch)
    if kind == "forward":
        launch = products.forward(act("None"), n_rows, depth, n, pitch)
    else:
        launch = products.backward(act("None"), depth, n_rows, n, pitch)
    launch(weights.address, right.address, result.address, result.address)
    return result.values


def operands(kind, shape, of):
    n_rows, depth, n = shape
    rng = np.random.default_rng(KINDS.index(kind))
    a, b = of(rng, (n_rows, depth)), of(rng, (depth, n))
    return (each.astype(np.float32).astype(np.float64) for each in (a, b))


DRAWN = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "positive": lambda rng, shape: rng.uniform(1, 2, size=shape),
    "many sizes": lambda rng, shape: rng.normal(size=shape) * 2.0 ** rng.integers(-30, 30, shape),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", DRAWN)
@pytest.mark.parametrize("rounding", ["to the nearest", "cut off"])
def test_as_exact_as_multiply_adds(device, other, monkeypatch, kind, drawn, rounding):
    """The bound is that of docs/design/float32_products.md."""
    if rounding == "cut off":
        monkeypatch.setattr(matrix, "rounded", cut_off)
    shape = (33, 700, 40) if kind == "weights" else (33, 70, 40)
    a, b = operands(kind, shape, DRAWN[drawn])
    exact, magnitude = a @ b, np.abs(a) @ np.abs(b)
    errors = [np.abs(product(each, kind, a, b) - exact) / magnitude for each in (device, other)]
    assert (errors[0] <= 2.0**-21 + 2.0**-22 + shape[1] / 8 * 2.0**-24).all()
    assert errors[0].mean() <= 4 * errors[1].mean()
    assert errors[0].max() <= 4 * errors[1].max()


INFINITY, LARGEST = np.inf, float(np.finfo(np.float32).max)


@pytest.mark.parametrize("kind", KINDS)
def test_infinities_and_overflows_are_those_of_multiply_adds(device, other, kind):
    """One of them in each row of a and column of b, beside numbers whose smaller part is 0 or not.

    They are 1 or less, so that only what is drawn on purpose overflows.
    """
    drawn = [INFINITY, -INFINITY, np.nan, LARGEST, -LARGEST, LARGEST / 2]
    a, b = operands(kind, (40, 24, 70), lambda rng, shape: rng.uniform(-1, 1, shape))
    b[:, ::3] = np.sign(b[:, ::3])
    for k, value in enumerate(drawn):
        a[2 * k, k] = b[23 - k, 5 * k] = value
        a[13 + 2 * k, 23 - k] = value  # meets the one of b
    b[:, 68], a[33] = 0, 0
    result, expected = product(device, kind, a, b), product(other, kind, a, b)
    assert np.isnan(expected).any()
    for sign in (1, -1):
        assert (expected == sign * INFINITY).any()
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(result[14::2, 1::5]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_with_denormal_parts(device, kind):
    """What is below the normal numbers may count as zero, and no more is lost."""
    a, b = operands(kind, (20, 40, 70), lambda rng, shape: rng.normal(size=shape))
    tiny = (a * 2.0**-122).astype(np.float32).astype(np.float64)
    result, magnitude = product(device, kind, tiny, b), np.abs(tiny) @ np.abs(b)
    lost = 2.0**-126 * (np.abs(b).sum(axis=0) + a.shape[1])
    assert (np.abs(result - tiny @ b) <= 2.0**-20 * magnitude + lost).all()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_multiply_adds(other, size):
    """The products of GPUs whose tensor cores are too slow for parts."""
    check_forward(other, "float32", size, "SiLU", biased=True)
    assert_close(*run_backward(other, "float32", size, "ReLU"), "float32")
    check_weight_gradients(other, "float32", size)
    assert other.counters.mma == 0


def test_the_choice():
    """Only where tensor cores multiply tf32 at more than three times the rate of float32."""
    for capability in (7, 5), (8, 6), (8, 9), (10, 0), (12, 0):
        assert products_for(Emulated(capability), "float32") is fma
    for capability in (8, 0), (9, 0):
        assert products_for(Emulated(capability), "float32") is tensor_floats
