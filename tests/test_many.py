"""Many models side by side come to what each comes to by itself, bit for bit."""

import copy
import pickle

import numpy as np
import pytest
from models import HASH, batch_of, make_config, mlp

import numbanet
from numbanet.registry import ConfigError

ADAM = {"otype": "Adam", "learning_rate": 1e-2}
OPTIMIZERS = {
    "Adam": ADAM,
    "EMA": {"otype": "EMA", "nested": ADAM},
    "Novograd": {"otype": "Novograd"},
    "Shampoo": {"otype": "Shampoo"},
}
N_MODELS, N = 3, 40


def config(optimizer=ADAM):
    return make_config(HASH, mlp("FullyFusedMLP", 16, 2), optimizer=optimizer)


def create(optimizer=ADAM, n=N_MODELS, **options):
    return numbanet.create_many(2, 3, config(optimizer), n, device="cpu", **options)


def alone(k, optimizer=ADAM):
    return numbanet.create_from_config(2, 3, config(optimizer), 1337 + k, device="cpu")


def batches(n_steps, seed=0):
    """For each step the samples of each model."""
    rng = np.random.default_rng(seed)
    for _ in range(n_steps):
        x = rng.random((N_MODELS, N, 2), np.float32)
        yield x, np.concatenate([x, x[..., :1] * x[..., 1:]], axis=-1)


def assert_same(models, k, one):
    found = models[k].trainer.tensors()
    for name, expected in one.trainer.tensors().items():
        np.testing.assert_array_equal(found[name], expected, err_msg=f"{k}: {name}")
    assert models.n_steps[k] == one.trainer.n_steps


@pytest.mark.parametrize("otype", OPTIMIZERS)
def test_models_are_trained_as_if_alone(otype):
    models = create(OPTIMIZERS[otype])
    singles = [alone(k, OPTIMIZERS[otype]) for k in range(N_MODELS)]
    for x, y in batches(3):
        losses = models.training_step(x, y)
        expected = [one.trainer.training_step(*each) for one, *each in zip(singles, x, y)]  # noqa: B905
        np.testing.assert_allclose(losses, list(map(float, expected)), rtol=1e-6)
    (x, _), *_ = batches(1, seed=1)
    outputs = models(x)
    for k, one in enumerate(singles):
        assert_same(models, k, one)
        np.testing.assert_array_equal(outputs[k], one(x[k]))


@pytest.mark.parametrize("compression", ["Int8", "OneBit"])
def test_tables_in_few_bits_are_those_of_a_model_alone(compression):
    own = make_config({**HASH, "compression": compression}, mlp("FullyFusedMLP", 16, 2))
    models = numbanet.create_many(2, 3, own, N_MODELS, device="cpu")
    singles = [
        numbanet.create_from_config(2, 3, own, 1337 + k, device="cpu") for k in range(N_MODELS)
    ]
    for x, y in batches(3):
        models.training_step(x, y)
        for one, *each in zip(singles, x, y, strict=True):
            one.trainer.training_step(*each)
    outputs = models(x)
    for k, one in enumerate(singles):
        assert_same(models, k, one)
        np.testing.assert_array_equal(outputs[k], one(x[k]))
        np.testing.assert_array_equal(outputs[k], models[k](x[k]))


def test_one_batch_for_all(tmp_path):
    models = create()
    x, y = batch_of("hash", N)
    models.training_step(x, y)
    models[2].save(tmp_path / "model")
    one = alone(2)
    one.trainer.training_step(x, y)
    assert_same(models, 2, one)
    loaded = numbanet.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(loaded(x), models(x)[2])
    before = models.params[2].copy()
    loaded.trainer.training_step(x, y)  # a model of its own
    models[1].trainer.training_step(x, y)
    np.testing.assert_array_equal(models.params[2], before)


def test_rates_and_configs_of_each_model():
    rates = [1e-3, 1e-2, 1e-1]
    configs = [config({**ADAM, "learning_rate": rate}) for rate in rates]
    swept = numbanet.create_many(2, 3, configs, seeds=[5] * 3, device="cpu")
    np.testing.assert_array_equal(swept.params[0], swept.params[2])
    set_later = numbanet.create_many(2, 3, config(), seeds=[5] * 3, device="cpu")
    set_later.learning_rates = rates
    np.testing.assert_array_equal(set_later.learning_rates, rates)
    x, y = batch_of("hash", N)
    for models in (swept, set_later):
        models.training_step(x, y)
    np.testing.assert_array_equal(swept.params, set_later.params)
    assert np.ptp(swept.params, axis=0).max() > 1e-2


@pytest.mark.parametrize("where", ["inputs", "targets"])
def test_a_model_with_what_is_not_finite_skips_its_own_step(where):
    models, before = create(), create().params
    ((x, y),) = batches(1)
    {"inputs": x, "targets": y}[where][1, 3] = np.nan
    with pytest.warns(RuntimeWarning, match=r"of 1 models are infinite or NaN \(1\)"):
        models.training_step(x, y)
    np.testing.assert_array_equal(models.n_steps, [1, 0, 1])
    np.testing.assert_array_equal(models.n_skipped_steps, [0, 1, 0])
    moved = (models.params != before).any(axis=1)
    np.testing.assert_array_equal(moved, [True, False, True])


def test_a_step_that_overflows_is_taken_back():
    models = create({"otype": "SGD", "learning_rate": 1.0})
    models.learning_rates = [1e-3, 3e38, 1e-3]
    ((x, y),) = batches(1)
    y[1, :, 0] = 1e6
    before = models.params.copy()
    with pytest.warns(RuntimeWarning, match="of 1 models"):
        models.training_step(x, y)
    np.testing.assert_array_equal(models.n_steps, [1, 0, 1])
    np.testing.assert_array_equal(models.params[1], before[1])


def test_an_empty_batch_steps_nothing():
    models = create()
    before = models.params.copy()
    losses = models.training_step(np.zeros((0, 2)), np.zeros((0, 3)))
    np.testing.assert_array_equal(losses, np.zeros(N_MODELS))
    np.testing.assert_array_equal(models.params, before)
    np.testing.assert_array_equal(models.n_steps, np.zeros(N_MODELS))


def test_arguments_are_checked():
    models = create()
    x, y = batch_of("hash", N)
    for arguments, message in (
        ((x[:, :1], y), "inputs"),
        ((x, y[:-1]), "targets"),
        ((np.stack([x, x]), y), "inputs: of 2 models, and there are 3"),
        ((x, y, y[:, :1]), "pdf"),
        ((np.stack([x] * 3), y[:-1]), "targets: expected shape"),
        ((np.stack([x] * 3), np.stack([y[:-1]] * 3)), r"targets: expected shape \[3, 40, 3\], got"),
    ):
        with pytest.raises(ValueError, match=message):
            models.training_step(*arguments)
    assert not models.n_steps.any()
    for rates in ([1, 2], "a", {}):
        with pytest.raises(ValueError, match=r"learning_rates: .* one for each of 3 models"):
            models.learning_rates = rates
    for k in ("a", slice(2), 1.0):
        with pytest.raises(TypeError):
            models[k]
    for k in (3, -4, 10**20):
        with pytest.raises(IndexError, match=f"model {k}: there are 3, numbered from 0"):
            models[k]
    with pytest.raises(TypeError, match="inputs: expected an array"):
        models([[1, 2], [3]])
    for options in ({}, {"n": 0}, {"n": 2, "seeds": [1, 2, 3]}, {"n": 1.5}, {"n": [3]}):
        with pytest.raises(ValueError, match="say how many"):
            numbanet.create_many(2, 3, config(), device="cpu", **options)
    wider = copy.deepcopy(config())
    wider["network"]["n_neurons"] = 32
    with pytest.raises(ConfigError, match=r"config\[1\]: needs other code"):
        numbanet.create_many(2, 3, [config(), wider], device="cpu")
    for no_config in (3, None, "config.json", [config(), None]):
        with pytest.raises(ConfigError, match="config: expected a JSON object, got"):
            numbanet.create_many(2, 3, no_config, 2, device="cpu")
    for seeds in (1.5, None, "ab"):
        with pytest.raises(ValueError, match=r"seed: .* is not allowed; use an integer from 0"):
            numbanet.create_many(2, 3, config(), 2, seeds=seeds, device="cpu")


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_many_models_are_not_duplicated(duplicate):
    models = create()
    with pytest.raises(TypeError, match=r"not pickled or copied; take one, as models\[0\]"):
        duplicate(models)
    with pytest.raises(AttributeError):
        models.deterministic = True


def test_parameters_are_given_to_all():
    models = create({"otype": "EMA", "nested": ADAM})
    x, y = batch_of("hash", N)
    models.training_step(x, y)
    values = models.params + np.float32(1)
    models.params = values
    one = alone(0, {"otype": "EMA", "nested": ADAM})
    one.trainer.training_step(x, y)
    one.network.params = values[0]
    assert_same(models, 0, one)
    np.testing.assert_array_equal(models(x)[0], one(x))
    for wrong in (values[:2], values[:, :-1], values[0]):
        with pytest.raises(ValueError, match="params"):
            models.params = wrong
