"""Novograd: what is particular to it; the laws compare it with its twin."""

import laws
import numpy as np
import pytest

from numbanet.optimizers import Novograd
from numbanet.optimizers.base import ParamLayout
from numbanet.registry import create

LAYOUT = ParamLayout(60, ((4, 8), (2, 4)))


def train(scale, **options):
    """Weights after some steps with gradients scaled that much."""
    rng = np.random.default_rng(0)
    steps = laws.Steps(Novograd(learning_rate=0.1, **options), LAYOUT, rng.normal(size=60))
    for _ in range(5):
        steps.step(scale * rng.normal(size=60))
    return steps.weights


@pytest.mark.parametrize("part", [slice(0, 32), slice(32, 40), slice(40, 60)])
def test_the_size_of_a_matrix_gradient_does_not_matter(part):
    """Each matrix is normed by itself, and so is what is no matrix."""
    scale = np.ones(60)
    scale[part] = 64
    np.testing.assert_allclose(train(scale), train(1), rtol=1e-5)
    lonely = np.ones(60)
    lonely[part.start] = 64
    assert abs(train(lonely)[part] - train(1)[part]).min() > 1e-4


def test_the_first_step_has_the_length_of_the_learning_rate():
    steps = laws.Steps(Novograd(learning_rate=0.5), LAYOUT, np.zeros(60))
    steps.step(np.random.default_rng(0).normal(size=60))
    lengths = [np.linalg.norm(steps.weights[first:last]) for first, last in LAYOUT.matrix_ranges]
    np.testing.assert_allclose(lengths, 0.5, rtol=1e-6)


def test_no_gradient_is_no_step():
    steps = laws.Steps(Novograd(epsilon=0.0), LAYOUT, np.ones(60))
    steps.step(np.zeros(60))
    np.testing.assert_array_equal(steps.weights, 1)


def test_defaults():
    assert create("optimizer", {"otype": "novograd"}, default="none") == Novograd(
        1e-3, 0.9, 0.999, 1e-8, 0.0, 0.0
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [("beta1", 1.0), ("beta2", -0.1), ("epsilon", -1.0), ("relative_decay", -1.0)],
)
def test_wrong_values(option, value):
    with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use "):
        Novograd(**{option: value})
