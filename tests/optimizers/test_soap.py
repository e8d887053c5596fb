"""SOAP: its bases, convergence, and what its options may be; the laws compare it with its twin."""

from dataclasses import replace

import numpy as np
import pytest
from test_shampoo import loss_after, rotation

from numbanet.cpu import operations
from numbanet.optimizers import SOAP, Adam
from numbanet.optimizers.layout import ParamLayout
from numbanet.optimizers.soap import turn_basis


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_bases_come_to_be_eigenvectors(n):
    rng = np.random.default_rng(n)
    vectors, values = rotation(n, rng), np.geomspace(1, 1e-3, n)
    covariance = ((vectors * values) @ vectors.T).astype(np.float32)
    basis = np.eye(n, dtype=np.float32)
    for _ in range(600):
        turn_basis(operations, covariance, basis)
    np.testing.assert_allclose(basis.T @ basis, np.eye(n), atol=1e-5)
    turned = basis.T @ covariance @ basis
    np.testing.assert_allclose(turned, np.diag(np.diagonal(turned)), atol=1e-4)


@pytest.mark.parametrize("matrix", [np.zeros((3, 3)), np.full((3, 3), np.nan)], ids=["0", "NaN"])
def test_a_basis_of_nothing_is_the_identity(matrix):
    matrix = matrix.astype(np.float32)
    operations.orthonormalize(matrix)
    np.testing.assert_array_equal(matrix, np.eye(3))


def test_converges_faster_than_adam():
    """On quadratic functions whose axes are none of the parameters'."""

    def best(optimizer):
        return min(
            np.mean(
                [np.log(loss_after(replace(optimizer, learning_rate=r), 50, k)) for k in range(3)]
            )
            for r in (0.03, 0.1, 0.3)
        )

    soap = SOAP(matrix_beta1=0.9, matrix_beta2=0.99, interval=2)
    assert best(soap) < best(Adam(beta2=0.99, l2_reg=0.0))


def test_an_encoding_alone_is_left_to_adam():
    assert not SOAP().preconditions(ParamLayout(20))
    assert SOAP().n_statistics(ParamLayout(20)) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [("matrix_beta1", 1.0), ("matrix_beta2", -0.1), ("shampoo_beta", 1.0), ("interval", 0),
     ("learning_rate", -1.0)],
)  # fmt: skip
def test_wrong_values(option, value):
    with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use "):
        SOAP(**{option: value})
