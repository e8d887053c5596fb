"""Parameters stay finite whatever the gradients and the options: such a step is taken back."""

import json

import laws
import numpy as np
import pytest

from numbanet.cpu.target import CpuTraining
from numbanet.engine import Batch, Gradients
from numbanet.optimizers.base import ParamLayout

LAYOUT = ParamLayout(60, ((8, 4), (2, 4)))
OPTIMIZERS = {
    json.dumps({"otype": otype, **config}): (otype, config)
    for otype, config, _ in laws.examples("optimizer")
}
WEIGHTS = np.random.default_rng(3).normal(size=60).astype(np.float32)
GRADIENT = np.random.default_rng(4).normal(size=60).astype(np.float32)
NO_INPUTS = Batch(np.zeros((1, 1), np.float32))


class Engine:
    """Has the gradients that it is given."""

    def forward_backward(self, inputs, params, *, gradients, **_):
        gradients.flat[:] = self.gradient
        return 0.0


class Training:
    def __init__(self, otype, config, weights=WEIGHTS):
        self.optimizer = laws.create("optimizer", otype, config, {})
        self.engine, self.params = Engine(), weights.copy()
        self.of_target = CpuTraining(self.engine, self.params, self.optimizer, LAYOUT)
        self.gradients = Gradients(np.zeros(60, np.float32))

    def everything(self):
        own = self.of_target
        return self.params, own.state, own.matrices, own.statistics

    def step(self, gradient):
        """Whether the step was skipped, which leaves everything as it was."""
        self.engine.gradient = np.asarray(gradient, np.float32)
        before = [array.copy() for array in self.everything()]
        arguments = NO_INPUTS, self.params, None, self.optimizer, self.gradients, None
        skipped = self.of_target.step(*arguments, overwrite=True, run_optimizer=True).skipped
        assert all(np.isfinite(array).all() for array in self.everything())
        if skipped:
            for array, expected in zip(self.everything(), before, strict=True):
                np.testing.assert_array_equal(array, expected)
        return skipped


@pytest.fixture(params=OPTIMIZERS)
def example(request):
    return OPTIMIZERS[request.param]


@pytest.mark.filterwarnings("ignore:overflow")
def test_steps_with_any_gradient_leave_all_finite(example):
    training = Training(*example)
    assert not training.step(GRADIENT)
    for size in (1e8, 1e13, 1e18, 9e18):
        training.step(GRADIENT / np.abs(GRADIENT).max() * size)
    for size in (2e19, 1e20, 1e30, 3e38):
        assert training.step(GRADIENT / np.abs(GRADIENT).max() * size)
        one = GRADIENT.copy()
        one[17] = size
        assert training.step(one)
    assert not training.step(GRADIENT)


ABSURD = [
    ("SGD", {"learning_rate": 1e38}),
    ("SGD", {"learning_rate": 1.0, "l2_reg": 1e38}),
    ("SGD", {"learning_rate": 10.0, "l2_reg": 1e5}),
    ("Adam", {"learning_rate": 3e38}),
    ("Adam", {"l2_reg": 3e38, "non_matrix_l2_reg": 3e38}),
    ("Adam", {"learning_rate": 1e20, "relative_decay": 1e20}),
    ("Adam", {"absolute_decay": 3e38, "learning_rate": 1e4}),
    ("Adam", {"beta1": 0.999, "beta2": 0.1, "epsilon": 0.0, "learning_rate": 1e6}),
    ("Novograd", {"learning_rate": 3e38}),
    ("Novograd", {"relative_decay": 3e38}),
    ("Shampoo", {"learning_rate": 3e38}),
    ("Shampoo", {"l2_reg": 3e38}),
    ("EMA", {"nested": {"otype": "SGD", "learning_rate": 1e38}}),
    ("Lookahead", {"nested": {"otype": "Adam", "learning_rate": 3e38}}),
    ("Average", {"n_samples": 3, "nested": {"otype": "SGD", "learning_rate": 1e38}}),
    ("Batched", {"batch_size_multiplier": 2, "nested": {"otype": "SGD", "learning_rate": 1e38}}),
    ("ExponentialDecay", {"decay_base": 1e30, "decay_start": 1, "decay_interval": 1}),
    (
        "Composite",
        {
            "learning_rate": 1e30,
            "nested": [
                {"otype": "SGD", "learning_rate": 1e8, "n_params_to_optimize": 40},
                {"otype": "Adam", "n_params_to_optimize": 20},
            ],
        },
    ),
]


@pytest.mark.parametrize(("otype", "config"), ABSURD, ids=str)
def test_absurd_options_leave_all_finite(otype, config):
    training = Training(otype, config)
    skipped = [training.step(GRADIENT * 8) for _ in range(8)]
    assert any(skipped) or np.abs(training.params).max() > 10


def test_parameters_near_the_largest_float_stay_finite():
    training = Training("SGD", {"learning_rate": 1e5, "l2_reg": 0.0}, np.full(60, 3.4e38))
    assert training.step(np.full(60, -1e34))
    assert not training.step(np.full(60, 1e15))
