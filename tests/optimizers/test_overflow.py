"""Parameters stay finite whatever the gradients and the options: such a step is taken back.

And whatever state was loaded: one that would make NaN is refused.
"""

import json

import laws
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stand_in_engine import StandInEngine
from test_laws import LAYOUT

from numbanet import SnapshotError
from numbanet.cpu.target import CpuParameters, CpuTraining
from numbanet.engine import Batch, Gradients
from numbanet.saved_training import check_limits

OPTIMIZERS = {
    json.dumps({"otype": otype, **config}): (otype, config)
    for otype, config, _ in laws.examples("optimizer")
}
WEIGHTS = np.random.default_rng(3).normal(size=60).astype(np.float32)
GRADIENT = np.random.default_rng(4).normal(size=60).astype(np.float32)
NO_INPUTS = Batch(np.zeros((1, 1), np.float32))


class Training:
    def __init__(self, otype, config, weights=WEIGHTS):
        self.optimizer = laws.create("optimizer", otype, config, {})
        self.engine, self.params = StandInEngine(np.zeros(1, np.float32)), weights.copy()
        self.of_target = CpuTraining(
            self.engine, CpuParameters(self.params), self.optimizer, LAYOUT
        )
        self.gradients = Gradients(np.zeros(60, np.float32))

    def everything(self):
        own = self.of_target
        return self.params, own.state, own.matrices, own.statistics

    def check_limits(self):
        """Raise SnapshotError if a snapshot of this state would not be taken."""
        names = "params", "optimizer.state", "optimizer.matrices", "optimizer.statistics"
        tensors = dict(zip(names, self.everything(), strict=True))
        check_limits("file", self.optimizer, LAYOUT, tensors)

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
    for size in (1e-30, 1e-21, 1e8, 1e13, 1e18, 9e18, 0.0):
        training.step(GRADIENT / np.abs(GRADIENT).max() * size)
        training.check_limits()
    for size in (2e19, 1e20, 1e30, 3e38):
        assert training.step(GRADIENT / np.abs(GRADIENT).max() * size)
        one = GRADIENT.copy()
        one[17] = size
        assert training.step(one)
    assert not training.step(GRADIENT)


# Loaded states

NUMBERS = st.sampled_from([-3e38, -1e20, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1e10, 1e20, 1e30, 3e38])


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_state_in_the_limits_leaves_all_finite(example, data):
    """Rows, columns, blocks and single numbers of all arrays replaced, before any step."""
    training = Training(*example)
    for _ in range(data.draw(st.integers(0, 1))):
        training.step(GRADIENT)
    arrays = [array for array in training.everything()[1:] if array.size]
    for _ in range(data.draw(st.integers(1, 3)) if arrays else 0):
        rows = np.atleast_2d(data.draw(st.sampled_from(arrays)))
        row = rows[data.draw(st.integers(0, len(rows) - 1))]
        start = data.draw(st.integers(0, row.size - 1))
        row[start : start + data.draw(st.sampled_from([1, 7, row.size]))] = data.draw(NUMBERS)
    try:
        training.check_limits()
    except SnapshotError:
        return
    for gradient in (GRADIENT, np.zeros(60), 1e15 * GRADIENT / np.abs(GRADIENT).max(), GRADIENT):
        for _ in range(4):
            training.step(gradient)  # which asserts that all is finite


NOT_NEGATIVE = {"Adam": ("state", 1), "Novograd": ("matrices", 0), "Shampoo": ("state", 1)}
AROUND = {
    "nothing": lambda nested: nested,
    "EMA": lambda nested: {"otype": "EMA", "nested": nested},
    "Batched": lambda nested: {"otype": "Batched", "nested": nested},
    "Composite": lambda nested: {
        "otype": "Composite",
        "nested": [
            {"otype": "SGD", "n_params_to_optimize": 32},
            {**nested, "n_params_to_optimize": 28},
        ],
    },
    "Composite in Lookahead": lambda nested: {
        "otype": "Lookahead",
        "nested": AROUND["Composite"]({"otype": "Average", "n_samples": 2, "nested": nested}),
    },
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("otype", NOT_NEGATIVE)
def test_negative_second_moments_are_refused(otype, around):
    config = AROUND[around]({"otype": otype})
    training = Training(config.pop("otype"), config)
    training.check_limits()
    name, row = NOT_NEGATIVE[otype]
    getattr(training.of_target, name)[row, -1] = -1e-30
    with pytest.raises(SnapshotError, match=r"1 second moments .* are below 0"):
        training.check_limits()


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("last", [-1e-30, 1e38])
def test_so_are_statistics_that_no_products_have(around, last):
    config = AROUND[around]({"otype": "Shampoo"})
    training = Training(config.pop("otype"), config)
    matrix = training.of_target.statistics[-32:-16].reshape(4, 4)  # R of the last matrix
    matrix[3, 3] = last
    with pytest.raises(SnapshotError, match=r"1 (co)?variances"):
        training.check_limits()


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
