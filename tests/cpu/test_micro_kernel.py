"""Products on the CPU for every length of vectors, which this machine need not have."""

import numpy as np
import pytest
from numba import njit

from numbanet.cpu.micro_kernel import matrix_product, rows
from numbanet.networks.base import next_multiple

MOST_ROWS, MOST_COLUMNS, MOST_DEPTH = 48, 48, 37


def product_for(n_lanes):
    product = matrix_product(n_lanes)

    @njit
    def run(sizes, a, a_strides, b, c, pitch, accumulate):
        n_rows, n_columns, depth = sizes
        of_a = (a, 0, a_strides[0], a_strides[1])
        product(n_rows, n_columns, depth, of_a, (b, 0, pitch), (c, 0, pitch), accumulate)

    return run


@pytest.mark.parametrize("n_lanes", [4, 8, 16])
def test_products_are_right_and_stay_within_their_rows(n_lanes):
    rng = np.random.default_rng(n_lanes)
    run, pitch = product_for(n_lanes), MOST_COLUMNS
    a = rng.standard_normal((MOST_ROWS, MOST_ROWS), np.float32)
    b = rng.standard_normal((MOST_DEPTH, pitch), np.float32)
    for n_rows in (*range(1, 30), MOST_ROWS):
        n_columns, depth = 16 * (1 + n_rows % 3), 1 + 5 * n_rows % MOST_DEPTH
        transposed, accumulate = n_rows % 2 == 0, n_rows % 4 < 2
        strides = (1, MOST_ROWS) if transposed else (MOST_ROWS, 1)
        c = rng.standard_normal((MOST_ROWS, pitch), np.float32)
        before = c.copy()
        sizes = n_rows, n_columns, depth
        run(sizes, a.reshape(-1), strides, b.reshape(-1), c.reshape(-1), pitch, accumulate)
        left = (a.T if transposed else a)[:n_rows, :depth].astype(float)
        wanted = left @ b[:depth, :n_columns] + accumulate * before[:n_rows, :n_columns]
        np.testing.assert_allclose(c[:n_rows, :n_columns], wanted, rtol=1e-5, atol=2e-5)
        end = next_multiple(n_rows, rows(n_lanes))
        np.testing.assert_array_equal(c[end:], before[end:])
        np.testing.assert_array_equal(c[:, n_columns:], before[:, n_columns:])
