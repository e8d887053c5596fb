"""What optimizers do with whole matrices on the CPU."""

import numpy as np
import pytest

from numbanet.cpu import operations
from numbanet.device import device


@device
def add_index(i, j, array, factor):
    array[i, j] += factor[0] * np.float32(10 * i + j)


def test_apply_visits_every_element():
    array = np.ones((3, 4), np.float32)
    operations.apply(add_index, array, np.array([2], np.float32))
    np.testing.assert_array_equal(array, 1 + 2 * (10 * np.arange(3)[:, None] + np.arange(4)))


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_product(transpose_a, transpose_b):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(5, 4)).astype(np.float32)
    c = operations.empty((3, 4))
    operations.product(
        np.ascontiguousarray(a.T) if transpose_a else a,
        np.ascontiguousarray(b.T) if transpose_b else b,
        c,
        transpose_a=transpose_a,
        transpose_b=transpose_b,
    )
    np.testing.assert_allclose(c, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-6)


def test_a_view_shares_memory():
    state = np.zeros((2, 12), np.float32)
    operations.view(state, 14, (2, 3))[...] = [[1, 2, 3], [4, 5, 6]]
    np.testing.assert_array_equal(state[1], [0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0])
    assert (state[0] == 0).all()


def test_norm_squared():
    out = operations.empty((1, 1))
    operations.norm_squared(np.array([[1, 2], [3, 4]], np.float32), out)
    assert out == [[30]]


def test_when_looks_at_its_flag():
    calls = []
    for index in range(3):
        operations.when(np.array([1, 0, -2], np.float32), index, lambda k=index: calls.append(k))
    assert calls == [0, 2]
