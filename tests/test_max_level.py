"""Coarse to fine: with a max_level, finer levels are zeros, and their entries get no gradient."""

import models
import naive
import numpy as np
import pytest
from composed_models import COMPOSED
from laws import assert_close
from models import HASH

import numbanet

SHARES = [0.0, 0.25, 0.4, 0.5, 1.0]


def encoding_of(x):
    encoding = numbanet.create_encoding(2, HASH, device="cpu")
    encoding.params = np.random.default_rng(0).normal(size=encoding.n_params)
    return encoding, naive.encoding(HASH, 2)


def inputs(n):
    grid = naive.encoding(HASH, 2)
    x = np.random.default_rng(0).random((40 * n, 2), np.float32)
    return x[(grid.distance_to_border(x.astype(np.float64)) > 1e-3).all(axis=1)][:n].copy()


def hidden(shares, n_levels=4, width=2):
    """Whether a sample reads a feature, [n, features]."""
    levels = np.repeat(np.arange(n_levels), width)
    return levels[None] < np.asarray(shares, np.float32).reshape(-1, 1) * n_levels + 1e-3


@pytest.mark.parametrize("share", SHARES)
def test_a_level_for_all_samples(share):
    x = inputs(60)
    encoding, twin = encoding_of(x)
    mask = hidden(share)
    features = twin.forward(x.astype(np.float64), np.asarray(encoding.params, np.float64)) * mask
    assert_close(encoding(x, max_level=share), features, 1e-5)
    if share == 1:
        np.testing.assert_array_equal(encoding(x, max_level=share), encoding(x))


def test_a_level_for_each_sample_and_gradients_of_what_is_read():
    x = inputs(100)
    encoding, twin = encoding_of(x)
    shares = np.random.default_rng(1).choice(SHARES, 100)
    mask, table = hidden(shares), np.asarray(encoding.params, np.float64)
    x64 = x.astype(np.float64)
    y = twin.forward(x64, table) * mask
    assert_close(encoding(x, max_level=shares), y, 1e-5)
    assert_close(encoding(x, max_level=shares[:, None]), y, 1e-5)
    loss, optimizer = (
        numbanet.create_loss({"otype": "L2"}),
        numbanet.create_optimizer({"otype": "SGD", "learning_rate": 0.1, "l2_reg": 0.0}),
    )
    trainer, dl_dx = numbanet.Trainer(encoding, optimizer, loss), np.empty_like(x)
    value = trainer.training_step(x, np.zeros_like(y), dl_dinput=dl_dx, max_level=shares)
    assert float(value) == pytest.approx((y**2).mean(), rel=1e-5)
    dl_dy = 2 * y / y.size * mask
    expected = twin.backward_params(x64, table, dl_dy)
    assert_close(encoding.gradients, expected, 1e-4)
    assert_close(dl_dx, twin.backward_input(x64, table, dl_dy), 1e-4)
    assert_close(encoding.params, table - 0.1 * expected, 1e-5)
    again = trainer.training_step(x, np.zeros_like(y), run_optimizer=False)
    assert float(again) == pytest.approx((np.asarray(encoding(x)) ** 2).mean(), rel=1e-5)


def test_passes_one_by_one_take_a_level_for_each_sample():
    x = inputs(60)
    encoding, twin = encoding_of(x)
    rng = np.random.default_rng(1)
    shares, x64 = rng.choice(SHARES, 60), x.astype(np.float64)
    mask, table = hidden(shares), np.asarray(encoding.params, np.float64)
    y, context = encoding.forward(x, max_level=shares)
    assert_close(y, twin.forward(x64, table) * mask, 1e-5)
    dl_dy = rng.normal(size=y.shape).astype(np.float32)
    along = rng.normal(size=x.shape).astype(np.float32)
    dl_dx = encoding.backward(context, dl_dy)
    assert_close(dl_dx, twin.backward_input(x64, table, dl_dy * mask), 1e-4)
    assert_close(encoding.gradients, twin.backward_params(x64, table, dl_dy * mask), 1e-4)
    twice = 2 * np.asarray(encoding.gradients)
    assert (
        encoding.backward(context, dl_dy, input_gradient=False, gradient_mode="accumulate") is None
    )
    assert_close(encoding.gradients, twice, 1e-5)
    found = encoding.double_backward(context, dl_dy, along)
    of_twin = twin.double_backward(x64, table, dl_dy * mask, along)
    for gradient, expected in zip(found, (of_twin[0] * mask, of_twin[1]), strict=True):
        assert gradient.shape == expected.shape
        assert_close(gradient, expected, 1e-4)
    expected = twin.double_backward_params(x64, table, dl_dy * mask, along)
    assert_close(encoding.gradients, expected, 1e-4)


@pytest.mark.parametrize("name", ["hash", "composite"])
def test_passes_of_networks_are_those_of_zeroed_levels(name):
    model, _ = models.create_lively(name)
    network, share = model.network, 0.5
    x, dl_dy = models.batch_of(name, 40)
    zeroed = np.array(network.params)
    for level in [
        level for k, level in enumerate(network.levels) if k > share * len(network.levels)
    ]:
        zeroed[level.offset : level.offset + level.n_params] = 0
    y, context = network.forward(x, max_level=share)
    expected_y, of_zeroed = network.forward(x, zeroed)
    assert_close(y, expected_y, 1e-5)
    assert_close(network.backward(context, dl_dy), network.backward(of_zeroed, dl_dy), 1e-5)
    for dim in range(y.shape[1]):
        found = model.input_gradient(dim, x, max_level=share)
        assert_close(found, network.input_gradient(dim, x, zeroed), 1e-5)
    np.testing.assert_array_equal(network.inference(x, max_level=share), y)


@pytest.mark.parametrize("reduction", ["Sum", "Product"])
def test_grids_within_sums_and_products_have_levels(reduction):
    nested = [
        {**HASH, "n_dims_to_encode": 1},
        {"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 2},
        {**HASH, "n_levels": 2, "n_features_per_level": 4, "n_dims_to_encode": 1},
    ]
    config = {"otype": "Composite", "nested": nested[: 2 if reduction == "Product" else 3]}
    encoding = numbanet.create_encoding(4, {**config, "reduction": reduction}, device="cpu")
    rng, levels = np.random.default_rng(0), encoding.levels
    encoding.params = rng.normal(size=encoding.n_params)
    expected = [f"0.levels.{k}" for k in range(4)] + [f"2.levels.{k}" for k in range(2)]
    assert [level.name for level in levels] == expected[: len(levels)]
    assert sum(level.n_params for level in levels) == encoding.n_params
    read = np.zeros(encoding.n_params, bool)
    for level in levels:
        read[level.offset : level.offset + level.n_params] = level.name.endswith("0")
    x = rng.random((40, 4), np.float32)
    y, context = encoding.forward(x, max_level=0)
    of_zeroed, zeroed = encoding.forward(x, np.where(read, encoding.params, 0))
    assert_close(y, of_zeroed, 1e-6)
    groups = [{"parts": "0.levels.1", "learning_rate_factor": 0.0}]
    optimizer = numbanet.create_optimizer({"otype": "ParamGroups", "groups": groups})
    numbanet.Trainer(encoding, optimizer, numbanet.create_loss({"otype": "L2"}))
    if reduction == "Sum":  # whose gradients are a Concatenation's
        return
    dl_dy, along, found = rng.normal(size=y.shape), rng.normal(size=x.shape), []
    for each in (context, zeroed):
        dl_dx, first = encoding.backward(each, dl_dy), np.array(encoding.gradients)
        second = encoding.double_backward(each, dl_dy, along)[1]
        found.append([dl_dx, first, second, np.array(encoding.gradients)])
    for one, other in zip(*found, strict=True):
        assert_close(one, other if other.ndim > 1 else np.where(read, other, 0), 1e-5)


@pytest.mark.parametrize("name", ["hash", "composite"])
def test_networks_learn_from_coarse_to_fine(name):
    """As if the entries of finer levels were zeros, and these do not move."""
    model, _ = models.create_lively(name)
    network = model.network
    n, levels = 50, network.levels
    x, targets = models.batch_of(name, n)
    share = 0.25
    zeroed = np.array(network.params)
    fine = [level for k, level in enumerate(levels) if k > share * len(levels)]
    for level in fine:
        zeroed[level.offset : level.offset + level.n_params] = 0
    assert_close(model(x, max_level=share), network(x, zeroed), 1e-5)
    assert_close(model.trainer.inference(x, max_level=share), network(x, zeroed), 1e-5)
    assert "training, with max_level" in str(model.summary())
    before = np.array(network.params)
    for _ in range(3):
        model.trainer.training_step(x, targets, max_level=share)
    after = np.asarray(network.params)
    for level in levels:
        part = slice(level.offset, level.offset + level.n_params)
        assert (after[part] == before[part]).all() == (level in fine)


def test_what_is_no_level_is_refused():
    model = models.create("hash")
    x, targets = models.batch_of("hash", 10)
    for wrong in (-0.1, float("nan"), "coarse", "0.5", b"1", np.complex64(0.5), 1e9):
        with pytest.raises(ValueError, match="max_level"):
            model(x, max_level=wrong)
    for wrong in (float("nan"), -0.5, 1e9):
        levels = np.full(10, 0.5)
        levels[7] = wrong
        for each in (levels, levels[:, None].astype(np.float32), list(levels)):
            with pytest.raises(ValueError, match=r"max_level: .* of sample 7 is not allowed"):
                model(x, max_level=each)
            with pytest.raises(ValueError, match=r"max_level: .* of sample 7 is not allowed"):
                model.network.forward(x, max_level=each)
    for wrong in (np.zeros(9), [0.5], [0.5] * 9 + ["fine"], ["0.5"] * 10, [0.5] * 9 + [[1, 2]]):
        with pytest.raises(ValueError, match="max_level"):
            model.trainer.training_step(x, targets, max_level=wrong)
    levels = [0.5] * 10
    np.testing.assert_array_equal(model(x, max_level=levels), model(x, max_level=0.5))
    with pytest.raises(TypeError, match="max_level: the model has no grid"):
        models.create("identity")(np.zeros((3, 5)), max_level=0.5)
    composed = numbanet.create_from_config(*COMPOSED["shared"], device="cpu")
    assert composed(np.zeros((3, 5)), max_level=0.5).shape == (3, 3)


def test_text_is_no_level():
    encoding = numbanet.create_encoding(2, HASH, device="cpu")
    with pytest.raises(ValueError, match="max_level: '1' is no number"):
        encoding(np.zeros((3, 2)), max_level="1")
