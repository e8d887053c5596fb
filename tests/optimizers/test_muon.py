"""Muon: what it makes of a matrix; the laws compare it with its twin."""

import numpy as np
import pytest

import numbanet
from numbanet.cpu import operations
from numbanet.optimizers import Muon
from numbanet.optimizers.base import ParamLayout


def direction(d, **options):
    norm = np.full((1, 1), np.sum(d.astype(np.float64) ** 2), np.float32)
    d = d.astype(np.float32)
    Muon(**options).orthogonalise(operations, d, norm)
    return d


@pytest.mark.parametrize("shape", [(8, 8), (5, 16), (16, 5), (1, 7), (7, 1)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_to_one(shape, scale):
    """In the same directions, and larger for tall matrices, whatever the gradient's size is."""
    d = scale * np.random.default_rng(0).normal(size=shape)
    found, factor = direction(d), max(1, shape[0] / shape[1]) ** 0.5
    u, _, v = np.linalg.svd(d, full_matrices=False)
    values = np.diagonal(u.T @ found @ v.T) / factor
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    np.testing.assert_allclose(found, factor * (u * values) @ v, atol=1e-4)


def test_nothing_comes_of_no_gradient():
    np.testing.assert_array_equal(direction(np.zeros((3, 4))), 0)


def test_an_encoding_alone_is_left_to_adam():
    layout = ParamLayout(20)
    assert not Muon().preconditions(layout)
    assert Muon().matrix_ranges(layout) == ((0, 20),)


def test_two_rates_are_multiplied_by_a_schedule():
    schedule = numbanet.create_optimizer(
        {"otype": "WarmUp", "n_steps": 4, "nested": {"otype": "Muon", "adam_learning_rate": 0.5}}
    )
    scalars = np.empty(schedule.n_scalars, np.float32)
    schedule.schedule(np.int32(1), np.array(schedule.hyperparams(), np.float32), scalars)
    np.testing.assert_allclose(scalars[:2], [0.005, 0.125])


@pytest.mark.parametrize(
    ("option", "value"),
    [("momentum", 1.0), ("n_iterations", 0), ("n_iterations", 17), ("weight_decay", -1.0),
     ("adam_learning_rate", -1.0), ("beta1", 1.0)],
)  # fmt: skip
def test_wrong_values(option, value):
    with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use "):
        Muon(**{option: value})
