"""OneBlob against its definition: three wrapped copies of a clamped kernel for every bin."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from numbanet.encodings.one_blob import OneBlob
from numbanet.kernel_cache import compile_cached
from numbanet.registry import ConfigError, create

NONE = np.zeros(0, np.float32)
BINS = (1, 2, 4, 16, 64)
xs = st.floats(-3, 4, width=32)


def integral(t, n):
    """Of the blob of radius 1 / n around 0, up to t."""
    u = t * n
    return np.clip(15 / 16 * u * (1 - 2 / 3 * u**2 + u**4 / 5) + 0.5, 0, 1) * (abs(u) < 1) + 1.0 * (
        u >= 1
    )


def features(x, n):
    """[n] for one x, in float64."""
    borders = np.arange(n + 1)[:, None] / n - x + np.array([-1, 0, 1])
    return np.diff(integral(borders, n).sum(axis=1))


def slopes(x, n, step=1e-6):
    return (features(x + step, n) - features(x - step, n)) / (2 * step)


def curvatures(x, n, step=1e-4):
    return (features(x + step, n) - 2 * features(x, n) + features(x - step, n)) / step**2


@cache
def compiled(n):
    """forward, backward_input and double_backward_input of one dimension, on whole rows."""
    encoding = OneBlob(n_dims=1, n_bins=n)
    forward, backward, double = (
        encoding.forward,
        encoding.backward_input,
        encoding.double_backward_input,
    )

    @compile_cached
    def run(x, dl_dy, dl_ddx, y, dl_dx, dl_ddy, dl_dx2):
        forward(x, NONE, y)
        backward(x, NONE, dl_dy, dl_dx)
        double(x, NONE, dl_dy, dl_ddx, dl_ddy, dl_dx2)

    def all_of(x, dl_dy=None, dl_ddx=1.0):
        dl_dy = np.ones(n, np.float32) if dl_dy is None else dl_dy.astype(np.float32)
        y, dl_ddy = np.full((2, n), 99, np.float32)
        dl_dx, dl_dx2 = np.full((2, 1), 99, np.float32)
        single = np.array([x], np.float32), dl_dy, np.array([dl_ddx], np.float32)
        run(*single, y, dl_dx, dl_ddy, dl_dx2)
        return y, dl_dx[0], dl_ddy, dl_dx2[0]

    return all_of


@pytest.mark.parametrize(
    ("n", "x", "expected"),
    [
        (16, 0.3, {3: 0.00856, 4: 0.674, 5: 0.31744}),
        (16, 0.02, {0: 0.7483904, 1: 0.0317587, 15: 0.2198509}),
        (4, 0.3, {0: 0.31744, 1: 0.674, 2: 0.00856}),
        (4, 1.0, {0: 0.5, 3: 0.5}),
        (4, -0.1, {0: 0.16308, 2: 0.05792, 3: 0.779}),
    ],
)
def test_known_features(n, x, expected):
    y = compiled(n)(x)[0]
    wanted = np.zeros(n)
    wanted[list(expected)] = list(expected.values())
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_allclose(features(np.float32(x), n), wanted, atol=1e-5)


@pytest.mark.parametrize("n", BINS)
@given(x=xs)
def test_features_are_those_of_the_definition(n, x):
    np.testing.assert_allclose(compiled(n)(x)[0], features(x, n), atol=2e-6)


@pytest.mark.parametrize("n", BINS)
@given(x=st.floats(0, 1, width=32))
def test_features_add_up_to_one(n, x):
    assert abs(compiled(n)(x)[0].sum() - 1) < 1e-6


@pytest.mark.parametrize("n", [64, 128])
def test_many_bins_have_no_jumps(n):
    """tiny-cuda-nn's unfused kernel is off by one in bin 31 of 64."""
    for x in (0.1, 0.49, 0.51, 0.99):
        np.testing.assert_allclose(compiled(n)(x)[0], features(np.float32(x), n), atol=2e-6)


@pytest.mark.parametrize("n", BINS)
@given(x=xs, seed=st.integers(0, 99))
def test_input_gradient_is_the_slope(n, x, seed):
    dl_dy = np.random.default_rng(seed).normal(size=n)
    dl_dx = compiled(n)(x, dl_dy)[1]
    assert abs(dl_dx - slopes(x, n) @ dl_dy) < 2e-5 * n * abs(dl_dy).sum()


@pytest.mark.parametrize("n", BINS)
@given(x=xs, seed=st.integers(0, 99), dl_ddx=st.floats(-2, 2, width=32))
def test_double_backward_is_the_slope_and_the_curvature(n, x, seed, dl_ddx):
    dl_dy = np.random.default_rng(seed).normal(size=n)
    _, _, dl_ddy, dl_dx = compiled(n)(x, dl_dy, dl_ddx)
    np.testing.assert_allclose(dl_ddy, dl_ddx * slopes(x, n), atol=1e-4 * n)
    # The curvature has corners at the borders of bins, where differences round them off.
    curvature = curvatures(x, n) @ dl_dy
    assert abs(dl_dx - dl_ddx * curvature) < abs(dl_ddx) * 4e-3 * n**2 * abs(dl_dy).sum() + 1e-6


@pytest.mark.parametrize("x", [-1e30, -5.0, 5.0, 1e30])
def test_far_outside_there_is_nothing(x):
    y, dl_dx, dl_ddy, dl_dx2 = compiled(16)(x)
    assert not y.any()
    assert not dl_ddy.any()
    assert dl_dx == dl_dx2 == 0


def test_every_dimension_has_its_own_bins():
    encoding = OneBlob(n_dims=3, n_bins=4)
    x = np.array([0.3, 1.0, -0.1], np.float32)
    y = np.full(12, 99, np.float32)
    encoding.forward(x, NONE, y)
    expected = np.concatenate([features(value, 4) for value in x])
    np.testing.assert_allclose(y, expected, atol=2e-6)
    assert (encoding.n_outputs, encoding.n_params, encoding.padding_value) == (12, 0, 1.0)


@pytest.mark.parametrize("n_bins", [0, -4, 3, 48])
def test_bins_are_a_power_of_two(n_bins):
    config = {"otype": "OneBlob", "n_bins": n_bins}
    with pytest.raises(ConfigError, match=rf"^encoding\.n_bins: {n_bins} .*power of two"):
        create("encoding", config, default="OneBlob", n_dims=2)


@pytest.mark.parametrize(("n_dims", "n_bins"), [(3, 32), (2, 4), (1, 64)])
def test_partitions_are_parts_of_the_whole(n_dims, n_bins):
    """They are what CUDA runs: some bins of one dimension each."""
    encoding = OneBlob(n_dims=n_dims, n_bins=n_bins)
    rng = np.random.default_rng(0)
    x, dl_ddx = rng.random((2, n_dims), np.float32)
    dl_dy, y, dl_ddy = rng.random((3, encoding.n_outputs), np.float32)
    dl_dx, dl_dx2 = np.empty((2, n_dims), np.float32)
    encoding.forward(x, NONE, y)
    encoding.backward_input(x, NONE, dl_dy, dl_dx)
    encoding.double_backward_input(x, NONE, dl_dy, dl_ddx, dl_ddy, dl_dx2)
    sums = np.zeros((2, n_dims), np.float32)
    for partition, (start, stop) in enumerate(encoding.partition_columns):
        part, share = np.empty(stop - start, np.float32), np.empty(n_dims, np.float32)
        encoding.partition_forward(partition, x, NONE, part)
        np.testing.assert_allclose(part, y[start:stop], rtol=1e-6, atol=1e-7)
        encoding.partition_backward_input(partition, x, NONE, dl_dy[start:stop], share)
        sums[0] += share
        encoding.partition_double_backward_input(
            partition, x, NONE, dl_dy[start:stop], dl_ddx, part, share
        )
        np.testing.assert_allclose(part, dl_ddy[start:stop], rtol=1e-5, atol=1e-5)
        sums[1] += share
    assert encoding.partition_columns[-1][1] == encoding.n_outputs
    np.testing.assert_allclose(sums[0], dl_dx, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(sums[1], dl_dx2, rtol=1e-4, atol=1e-2)
