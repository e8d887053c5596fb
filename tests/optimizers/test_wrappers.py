"""Optimizers around optimizers, as a trainer uses them."""

import copy

import models
import naive
import numpy as np
import pytest
from laws import compiles_nothing

import numbanet
from numbanet.optimizers import EMA, SGD, Adam, Composite
from numbanet.optimizers.base import ParamLayout
from numbanet.optimizers.composite import Share
from numbanet.registry import ConfigError, create, to_config
from numbanet.unknown_options import UnknownOptionWarning

NAME = "hash"
N_MATRIX_PARAMS = 3 * 16 * 16
N_PARAMS = naive.Model(*models.MODELS[NAME]).n_params

ADAM = {"otype": "Adam", "learning_rate": 1e-2}
NOVOGRAD = {"otype": "Novograd", "learning_rate": 1e-2}
DECAY = {"otype": "ExponentialDecay", "decay_start": 2, "decay_interval": 2, "decay_base": 0.5}
STACKS = {
    "usual": {"otype": "EMA", "decay": 0.75, "nested": {**DECAY, "nested": ADAM}},
    "average": {"otype": "Average", "n_samples": 3, "nested": NOVOGRAD},
    "lookahead": {"otype": "Lookahead", "n_steps": 3, "nested": ADAM},
    "batched": {
        "otype": "Batched",
        "batch_size_multiplier": 2,
        "nested": {"otype": "EMA", "decay": 0.5, "nested": NOVOGRAD},
    },
    "muon": {
        "otype": "EMA",
        "decay": 0.5,
        "nested": {"otype": "WarmUp", "n_steps": 4, "nested": {"otype": "Muon"}},
    },
    "shampoo": {"otype": "EMA", "decay": 0.5, "nested": {"otype": "Shampoo"}},
    "composite": {
        "otype": "Composite",
        "nested": [
            {"n_params_to_optimize": N_MATRIX_PARAMS, "otype": "EMA", "nested": NOVOGRAD},
            {"n_params_to_optimize": N_PARAMS - N_MATRIX_PARAMS, **DECAY, "nested": ADAM},
        ],
    },
}


def create_model(optimizer, **options):
    n_input_dims, n_output_dims, config = models.MODELS[NAME]
    config = {**config, "optimizer": copy.deepcopy(optimizer)}
    return numbanet.create_from_config(n_input_dims, n_output_dims, config, device="cpu", **options)


def train(model, n_steps, first=0):
    for k in range(first, first + n_steps):
        model.trainer.training_step(*models.batch_of(NAME, 100, k))


@pytest.mark.parametrize("name", STACKS)
def test_a_trainer_steps_as_the_twin(name):
    model = create_model(STACKS[name])
    shapes = naive.Model(*models.MODELS[NAME]).mlp.shapes
    twin = naive.optimizer(STACKS[name], N_PARAMS, shapes)
    weights = model.network.params.astype(np.float64)
    for k in range(7):
        train(model, 1, k)
        weights = twin.step(weights, model.network.gradients.astype(np.float64))
        np.testing.assert_allclose(model.network.params, weights, rtol=1e-4, atol=1e-5)
        inference = getattr(twin, "inference", weights)
        np.testing.assert_allclose(model.trainer.inference_params, inference, rtol=1e-4, atol=1e-5)
    x = models.batch_of(NAME, 40)[0]
    for_inference = model.network(x, model.trainer.inference_params)
    np.testing.assert_array_equal(model(x), for_inference)
    assert (model(x) != model.network(x)).any()


@pytest.mark.parametrize("name", STACKS)
def test_inference_starts_from_the_weights(name):
    model = create_model(STACKS[name])
    np.testing.assert_array_equal(model.trainer.inference_params, model.network.params)
    model.network.params = np.arange(N_PARAMS)
    np.testing.assert_array_equal(model.trainer.inference_params, np.arange(N_PARAMS))


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("into", ["new", "existing"])
def test_resumed_training_is_the_same_bit_for_bit(tmp_path, name, into):
    straight, first = create_model(STACKS[name]), create_model(STACKS[name])
    train(straight, 8)
    train(first, 3)
    first.save(tmp_path / "snapshot")
    if into == "new":
        second = numbanet.load(tmp_path / "snapshot", device="cpu")
    else:
        second = create_model(STACKS[name], seed=4)
        train(second, 2)
        second.load(tmp_path / "snapshot")
    assert second.trainer.optimizer == first.trainer.optimizer
    np.testing.assert_array_equal(second.trainer.inference_params, first.trainer.inference_params)
    train(second, 5, first=3)
    np.testing.assert_array_equal(second.network.params, straight.network.params)
    for each in ("inference_params", "optimizer_state"):
        np.testing.assert_array_equal(
            getattr(second.trainer, each), getattr(straight.trainer, each)
        )


def test_a_snapshot_has_the_state_of_the_matrices(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model = create_model(STACKS["average"])
    model.save(tmp_path / "snapshot")
    tensors = safetensors.load_file(tmp_path / "snapshot")
    assert tensors["optimizer.matrices"].shape == (2, 4)  # three of the network, and the rest
    with pytest.raises(numbanet.SnapshotError, match="the optimizer is Average"):
        create_model(STACKS["usual"]).load(tmp_path / "snapshot")


# The learning rate


def steps_of(model, n_steps):
    """How far the weights go."""
    before = model.network.params.copy()
    train(model, n_steps)
    return model.network.params - before


SGD_STACKS = [
    {"otype": "EMA", "nested": {**DECAY, "nested": {"otype": "SGD", "learning_rate": 0.5}}},
    {
        "otype": "Lookahead",
        "nested": {
            "otype": "Composite",
            "nested": [
                {"n_params_to_optimize": 256, "otype": "SGD", "learning_rate": 0.25},
                {"n_params_to_optimize": N_PARAMS - 256, "otype": "SGD", "learning_rate": 1.0},
            ],
        },
    },
]


@pytest.mark.parametrize("optimizer", SGD_STACKS, ids=["ExponentialDecay", "Composite"])
def test_setting_the_learning_rate_reaches_the_innermost(optimizer):
    model, other = create_model(optimizer), create_model(optimizer)
    whole = steps_of(model, 1)
    with compiles_nothing():
        other.trainer.learning_rate = other.trainer.learning_rate / 4
        quarter = steps_of(other, 1)
    assert other.trainer.learning_rate == model.trainer.learning_rate / 4
    np.testing.assert_allclose(4 * quarter, whole, rtol=1e-3, atol=1e-6)


def test_what_is_read_is_the_rate_before_decay_and_a_factor_of_the_parts():
    rates = [create_model(optimizer).trainer.learning_rate for optimizer in SGD_STACKS]
    assert rates == [0.5, 1.0]


def test_a_wrong_learning_rate_names_its_place():
    trainer = create_model(STACKS["usual"]).trainer
    with pytest.raises(ConfigError, match=r"^optimizer\.nested\.nested\.learning_rate: -1"):
        trainer.learning_rate = -1.0
    assert trainer.learning_rate == 1e-2


def test_hyperparams_of_nested_ones_change_one_by_one():
    trainer = create_model(STACKS["usual"]).trainer
    trainer.update_hyperparams({"optimizer": {"nested": {"nested": {"beta1": 0.5}}}})
    adam = trainer.optimizer.nested.nested
    assert (adam.beta1, adam.learning_rate) == (0.5, 1e-2)
    assert trainer.optimizer.nested.decay_interval == 2
    trainer = create_model(STACKS["composite"]).trainer
    trainer.update_hyperparams({"optimizer": {"nested": [{}, {"decay_interval": 7}]}})
    first, second = trainer.optimizer.nested
    assert second.optimizer.decay_interval == 7
    assert second.optimizer.nested == create("optimizer", ADAM, default="none")
    assert first.n_params_to_optimize == N_MATRIX_PARAMS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nested": {"nested": {"beta3": 0.5}}}, r"^optimizer\.nested\.nested\.beta3: Adam has no"),
        ({"nested": {"nested": {"otype": "SGD"}}}, "state's size"),
        ({"nested": {"otype": "Lookahead"}}, "state's size"),
        ({"nested": 3}, r"^optimizer\.nested: expected a JSON object"),
    ],
)
def test_changes_that_cannot_be_made(change, message):
    trainer = create_model(STACKS["usual"]).trainer
    before = trainer.optimizer
    with pytest.raises(ConfigError, match=message):
        trainer.update_hyperparams({"optimizer": change})
    assert trainer.optimizer == before


# Configs


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"nested": {"learning_rate": -1.0}}, r"^optimizer\.nested\.learning_rate: -1"),
        ({"nested": {"otype": "Adams"}}, r"^optimizer\.nested\.otype: 'Adams' is no optimizer"),
        ({"nested": {"otype": "EMA", "nested": 3}}, r"^optimizer\.nested\.nested: expected a JSON"),
        ({"otype": "Composite"}, r"^optimizer\.nested: \(\) is not allowed; use a list"),
        ({"otype": "Composite", "nested": {}}, r"^optimizer\.nested: expected a list"),
        ({"otype": "Composite", "nested": [3]}, r"^optimizer\.nested\[0\]: expected a JSON object"),
        (
            {"otype": "Composite", "nested": [{"n_params_to_optimize": 1}, {}]},
            r"^optimizer\.nested\[1\]\.n_params_to_optimize: 0 is not allowed",
        ),
        (
            {"otype": "Composite", "nested": [{"n_params_to_optimize": 1.5}]},
            r"^optimizer\.nested\[0\]\.n_params_to_optimize: expected int",
        ),
        (
            {"otype": "Composite", "nested": [{"n_params_to_optimize": 1, "beta1": 2}]},
            r"^optimizer\.nested\[0\]\.beta1: 2.0 is not allowed",
        ),
    ],
)
def test_errors_name_the_place(config, message):
    with pytest.raises(ConfigError, match=message):
        create("optimizer", config, default="EMA")


def test_an_unknown_option_of_a_nested_one_warns():
    with pytest.warns(UnknownOptionWarning, match=r"^optimizer\.nested\.colour: Adam has no"):
        create("optimizer", {"nested": {"colour": 1}}, default="EMA")


def test_defaults():
    for otype, options in {
        "Average": {"n_samples": 128},
        "Batched": {"batch_size_multiplier": 16},
        "EMA": {"decay": 0.99, "full_precision": False},
        "ExponentialDecay": {
            "decay_base": 0.1,
            "decay_start": 10_000,
            "decay_end": 10_000_000,
            "decay_interval": 10_000,
        },
        "Lookahead": {"alpha": 0.5, "n_steps": 16},
        "CosineDecay": {"n_steps": 10_000, "decay_start": 0, "end_factor": 0.0},
        "WarmUp": {"n_steps": 1000, "start_factor": 0.0},
        "Piecewise": {"points": [[0, 1.0]]},
    }.items():
        made = create("optimizer", {"otype": otype}, default="none")
        assert to_config(made) == {"otype": otype, **options, "nested": to_config(Adam())}


@pytest.mark.parametrize(
    ("otype", "option", "values"),
    [
        ("EMA", "decay", (-0.1, 1.0)),
        ("Average", "n_samples", (0, 2**24)),
        ("Batched", "batch_size_multiplier", (0, -1)),
        ("Lookahead", "alpha", (-0.1, 1.1)),
        ("Lookahead", "n_steps", (0,)),
        ("ExponentialDecay", "decay_base", (-0.1,)),
        ("ExponentialDecay", "decay_start", (-1,)),
        ("ExponentialDecay", "decay_end", (-1,)),
        ("ExponentialDecay", "decay_interval", (0,)),
        ("CosineDecay", "n_steps", (0,)),
        ("CosineDecay", "decay_start", (-1,)),
        ("CosineDecay", "end_factor", (-0.1, 1.1)),
        ("WarmUp", "n_steps", (0,)),
        ("WarmUp", "start_factor", (-0.1, 1.1)),
    ],
)
def test_wrong_values(otype, option, values):
    for value in values:
        with pytest.raises(ConfigError, match=rf"^optimizer\.{option}: {value!r} is not allowed"):
            create("optimizer", {"otype": otype, option: value}, default="none")


# Composite


@pytest.mark.parametrize("sizes", [(40, 19), (40, 21), (60, 1)])
def test_parts_that_do_not_add_up_are_refused(sizes):
    optimizer = Composite(nested=tuple(Share(n, Adam()) for n in sizes))
    with pytest.raises(ConfigError, match=rf"add up to {sum(sizes)}, and there are 60 parameters"):
        EMA(nested=optimizer).matrix_ranges(ParamLayout(60, ((4, 8), (2, 4))))


def test_a_trainer_refuses_parts_that_do_not_add_up():
    parts = {"otype": "Composite", "nested": [{"n_params_to_optimize": 5, "otype": "SGD"}]}
    with pytest.raises(ConfigError, match=r"^optimizer: .*5.* matrix"):
        create_model(parts)


def test_parts_get_their_matrices():
    layout = ParamLayout(60, ((4, 8), (2, 4)))
    parts = Composite(nested=tuple(Share(n, SGD()) for n in (32, 18, 10))).layouts(layout)
    assert [part.shapes for part in parts] == [((4, 8),), ((2, 4),), ()]
    ranges = [part.matrix_ranges for part in parts]
    assert ranges == [((0, 32),), ((32, 40), (40, 50)), ((50, 60),)]
    assert [part.first_matrix for part in parts] == [0, 1, 3]


@pytest.mark.parametrize("first", [1, 31, 33, 39])
def test_no_matrix_is_divided(first):
    optimizer = Composite(nested=(Share(first, SGD()), Share(60 - first, SGD())))
    with pytest.raises(ConfigError, match="are one matrix"):
        optimizer.layouts(ParamLayout(60, ((4, 8), (2, 4))))
