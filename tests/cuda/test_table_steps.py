"""Steps that are decided before gradients of tables are added up: the same as after it."""

from functools import partial

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from test_fused import mlp

import numbanet
from numbanet.cuda import engine as engine_module
from numbanet.cuda.optimizer.table_steps import TableSteps
from numbanet.cuda.tables import plan as plan_module
from numbanet.cuda.tables.gradients import ModelTables

N, SHARED_BYTES = 100, 1024  # samples, and bytes of a table that is resident
GRID = {
    "otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "base_resolution": 4,
    "log2_hashmap_size": 10, "per_level_scale": 1.5,
}  # fmt: skip
TWO_GRIDS = {
    "otype": "Composite",
    "nested": [{**GRID, "n_dims_to_encode": 2}, {**GRID, "n_dims_to_encode": 1}],
}
ADAM = {"otype": "Adam", "learning_rate": 0.02, "l2_reg": 1e-4}
SGD = {"otype": "SGD", "learning_rate": 0.1}
COLLECTED = {  # inputs, encoding, optimizer, options
    "two features": (2, GRID, ADAM, {}),
    "four features": (
        *(2, {**GRID, "n_features_per_level": 4}),
        *({**ADAM, "moments": "bfloat16"}, {}),
    ),
    "two grids": (3, TWO_GRIDS, {"otype": "EMA", "nested": ADAM}, {"deterministic": True}),
    "no state": (2, GRID, SGD, {}),
}
DECIDED = {
    "levels in bins": (2, {**GRID, "n_levels": 4, "per_level_scale": 4.0}, ADAM, {}),
    "numbers of matrices": (2, GRID, {"otype": "Novograd"}, {}),
    "a parameter to a thread": (2, GRID, {"otype": "Batched", "nested": ADAM}, {}),
    "a step that may overflow": (2, GRID, {**ADAM, "learning_rate": 1e30}, {}),
}
MODELS = {**COLLECTED, **DECIDED}
OTHERS = {
    "sums may overflow": (2, GRID, ADAM, {"precision": "bfloat16"}),
    "a chain of kernels": (2, GRID, ADAM, {"fused": False}),
}


@pytest.fixture
def create(cuda_device, monkeypatch):
    """(inputs, encoding, optimizer, options) -> model whose batches of N have slices."""
    monkeypatch.setattr(plan_module, "FEWEST_OF_SLICE", 32)

    def tables_of(device, encoding, precision):
        tables = ModelTables(device, encoding, precision, SHARED_BYTES)
        tables.fewest = 1
        return tables

    monkeypatch.setattr(engine_module, "tables_of", tables_of)

    def create(n_inputs, encoding, optimizer, options, make=numbanet.create_from_config, more=()):
        config = {
            "loss": {"otype": "L2"},
            "optimizer": optimizer,
            "encoding": encoding,
            "network": mlp("FullyFusedMLP", 16, 1),
        }
        options = {"precision": "float16", **options}
        config["deterministic"] = options.pop("deterministic", False)
        return make(n_inputs, 1, config, *more, device=cuda_device, **options)

    return create


@pytest.fixture
def n_steps(monkeypatch):
    """() -> steps that were queued."""
    calls, begin = [], TableSteps._begin

    def counted(self, *arguments):
        calls.append(1)
        return begin(self, *arguments)

    monkeypatch.setattr(TableSteps, "_begin", counted)
    return partial(len, calls)


def batch(model):
    rng = np.random.default_rng(0)
    x = rng.random((N, model.network.n_input_dims), dtype=np.float32)
    return x, x[:, :1] ** 2


def state_of(model):
    network, trainer = model.network, model.trainer
    arrays = network.params, network.gradients, trainer.optimizer_state
    return [array.numpy() for array in arrays]


@pytest.mark.parametrize("name", [*COLLECTED, "levels in bins", "numbers of matrices"])
def test_parameters_gradients_and_state_are_the_same(name, create, n_steps, monkeypatch):
    stepped = create(*MODELS[name])
    losses = [float(stepped.trainer.training_step(*batch(stepped))) for _ in range(3)]
    assert n_steps() == 3
    monkeypatch.setattr(TableSteps, "serve", lambda *_: False)
    apart = create(*MODELS[name])
    expected = [float(apart.trainer.training_step(*batch(apart))) for _ in range(3)]
    np.testing.assert_allclose(losses, expected, 1e-5)
    assert n_steps() == 3
    for found, expected in zip(state_of(stepped), state_of(apart), strict=True):
        np.testing.assert_allclose(found, expected, 1e-4, 1e-7)  # sums may be rounded otherwise
    assert np.count_nonzero(state_of(apart)[1]) > 50


@pytest.mark.parametrize("name", ["two features", "levels in bins"])
@pytest.mark.parametrize("large", [1e8, np.nan])  # the first one is infinite as a half
def test_a_step_that_is_not_finite_changes_nothing(name, large, create, n_steps):
    model = create(*MODELS[name])
    x, y = batch(model)
    float(model.trainer.training_step(x, y))
    params, _, state = state_of(model)
    dl_dy = np.ones((N, 1), np.float32)
    dl_dy[7] = large
    with pytest.warns(RuntimeWarning, match="skipped"):
        float(model.trainer.training_step(x, None, external_dl_dy=dl_dy))
    assert n_steps() == 2
    found, gradients, state_after = state_of(model)
    np.testing.assert_array_equal(found, params)
    np.testing.assert_array_equal(state_after, state)
    assert not gradients.any()


@pytest.mark.parametrize("name", [*MODELS, *OTHERS])
def test_models_that_are_served(name, create):
    model = create(*{**MODELS, **OTHERS}[name])
    training, optimizer = model.trainer._own_training, model.trainer.optimizer
    engine, steps, rest = model.network.engine, training._table_steps, (None, None, object(), None)
    found, _ = training._kernels_of(optimizer)
    assert steps.serve(engine, (range(N), *rest)) == (name in MODELS)
    assert not steps.serve(engine, (range(1 << 31), *rest))  # sums may overflow
    if name in MODELS:
        assert steps.collect(engine, found, optimizer, N) == (name in COLLECTED)
        assert not steps.collect(engine, found, optimizer, 40)  # a single slice


@pytest.mark.parametrize("name", ["two features", "levels in bins"])
def test_many_models_step_as_each_alone(name, create, n_steps):
    of_model = (*MODELS[name][:3], {"deterministic": True})
    many, one = create(*of_model, numbanet.create_many, (2,)), create(*of_model, more=(1338,))
    x, y = batch(one)
    for _ in range(3):
        many.training_step(x, y)
        one.trainer.training_step(x, y)
    assert n_steps() == 6
    found = many[1].trainer.tensors()
    for key, expected in one.trainer.tensors().items():
        np.testing.assert_array_equal(found[key], expected, err_msg=key)


def test_other_steps_are_made_apart(create, n_steps):
    model = create(*COLLECTED["no state"])
    model.trainer.training_step(*batch(model), gradient_mode="accumulate")
    model.trainer.training_step(*batch(model), run_optimizer=False)
    assert n_steps() == 0
