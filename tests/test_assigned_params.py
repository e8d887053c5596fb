"""What assigning parameters does to averages and moments, the same on every target."""

import warnings

import numpy as np
import pytest
from models import make_config, mlp

import numbanet
from emulator.device import shared_device

SGD = {"otype": "SGD", "learning_rate": 0.02}
WRAPPERS = {
    "EMA": {"otype": "EMA", "decay": 0.5, "nested": SGD},
    "Lookahead": {"otype": "Lookahead", "n_steps": 2, "nested": SGD},
    "Average": {"otype": "Average", "n_samples": 3, "nested": SGD},
}
WRAPPERS["Batched"] = {"otype": "Batched", "batch_size_multiplier": 3, "nested": WRAPPERS["EMA"]}
WRAPPERS["nested"] = {"otype": "EMA", "nested": WRAPPERS["Average"]}
PLACES = {
    "cpu": lambda: {"device": "cpu"},
    "cuda": lambda: {"device": shared_device(), "precision": "float32"},
}
NETWORK = mlp("CutlassMLP", 16, 1)
X = np.random.default_rng(1).random((32, 2), np.float32)
TARGETS = np.sin(7 * X[:, :1])

pytestmark = [
    pytest.mark.parametrize("place", PLACES),
    pytest.mark.parametrize("name", WRAPPERS),
]


class Model:
    def __init__(self, name, place):
        config = make_config({"otype": "Identity"}, NETWORK, optimizer=WRAPPERS[name])
        self.model = numbanet.create_from_config(2, 1, config, **PLACES[place]())
        self.network, self.trainer = self.model.network, self.model.trainer
        self.n_calls = WRAPPERS[name].get("batch_size_multiplier", 1)

    def host(self, array):
        return np.array(self.network.target.to_host(array))

    def train(self, n_steps, x=X):
        for _ in range(n_steps):
            self.trainer.training_step(x, TARGETS)

    @property
    def params(self):
        return self.host(self.network.params)

    @property
    def inferred(self):
        """The parameters for inference; that they are what inference reads is checked too."""
        found = self.host(self.trainer.inference_params)
        expected = self.host(self.network(X, params=found))
        np.testing.assert_array_equal(self.host(self.model(X)), expected)
        return found


def other_values(model):
    return np.random.default_rng(2).normal(size=model.network.n_params).astype(np.float32) / 4


def write_in_place(model, values):
    params = model.network.params
    if isinstance(params, np.ndarray):
        params[:] = values
    else:
        model.network.target.copy_from_host(params, values)


def test_assignment_sets_all_copies(name, place):
    model = Model(name, place)
    model.train(2 * model.n_calls)
    assert (model.inferred != model.params).any()
    model.network.params = values = other_values(model)
    np.testing.assert_array_equal(model.params, values)
    np.testing.assert_array_equal(model.inferred, values)
    assert model.trainer.n_steps == 2 * model.n_calls
    model.train(model.n_calls)
    # A step away from the new values, and not from the old ones.
    assert 0 < np.abs(model.params - values).max() < 0.05
    assert np.abs(model.inferred - values).max() < 0.05


@pytest.mark.parametrize("in_place", [True, False])
def test_assignment_before_the_first_step(name, place, in_place):
    model = Model(name, place)
    values = other_values(model)
    if in_place:
        write_in_place(model, values)
    else:
        model.network.params = values
    np.testing.assert_array_equal(model.inferred, values)
    for k in range(model.n_calls):
        model.train(1)
        if k + 1 < model.n_calls:  # the weights have not moved yet
            np.testing.assert_array_equal(model.inferred, values)
    first_step = model.params
    averaged = model.inferred
    expected = values if name == "Lookahead" else first_step
    np.testing.assert_allclose(averaged, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("in_place", [True, False])
def test_assignment_after_a_first_step_that_was_skipped(name, place, in_place):
    model = Model(name, place)
    bad = X.copy()
    bad[3] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.train(1, bad)
    values = other_values(model)
    if in_place:
        write_in_place(model, values)
    else:
        model.network.params = values
    np.testing.assert_array_equal(model.inferred, values)
    assert model.trainer.n_steps == 0


def test_moments_stay(name, place):
    model = Model(name, place)
    model.train(model.n_calls + 1)
    before = model.host(model.trainer.optimizer_state)
    model.network.params = other_values(model)
    after = model.host(model.trainer.optimizer_state)
    rows = model.trainer.optimizer.weight_rows(model.network.n_params)
    holds_weights = np.isin(np.arange(len(before)), [row for row, *_ in rows])
    np.testing.assert_array_equal(after[~holds_weights], before[~holds_weights])
    np.testing.assert_array_equal(after[holds_weights], [model.params] * holds_weights.sum())
