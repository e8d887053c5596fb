"""SGD against its definition."""

from dataclasses import replace

import numpy as np
import pytest

from numbanet.optimizers import SGD
from numbanet.optimizers.base import ParamLayout
from numbanet.registry import create


def test_a_step_follows_the_gradient_and_the_decay():
    optimizer = SGD(learning_rate=0.5, l2_reg=0.25)
    step, nothing = optimizer.step(ParamLayout(40)), np.empty((0, 40), np.float32)
    rng = np.random.default_rng(0)
    weights, gradients = rng.normal(size=(2, 40)).astype(np.float32)
    expected = weights - 0.5 * (gradients + 0.25 * weights)
    scalars = np.zeros(1, np.float32)
    optimizer.schedule(np.int32(1), np.array(optimizer.hyperparams(), np.float32), scalars)
    assert scalars == [0.5]
    for i in range(40):
        w = step(i, weights[i], gradients[i], nothing, scalars, nothing)
        np.testing.assert_allclose(w, expected[i], rtol=1e-6, atol=1e-7)


def test_defaults():
    made = create("optimizer", {"otype": "sgd"}, default="Adam")
    assert made == SGD(1e-3, 1e-8)
    assert (made.n_state, made.n_scalars, made.hyperparams()) == (0, 1, (1e-3,))
    assert made.kernel_key() == replace(made, learning_rate=2.0).kernel_key()


@pytest.mark.parametrize("option", ["learning_rate", "l2_reg"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_wrong_values(option, value):
    with pytest.raises(ValueError, match=rf"^{option}: {value!r} is not allowed; use a finite"):
        SGD(**{option: value})
