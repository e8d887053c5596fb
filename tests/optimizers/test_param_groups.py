"""ParamGroups with a model: levels and parts by name, changes while training, errors."""

import models
import numpy as np
import pytest
from composed_models import COMPOSED

import numbanet

ADAM = {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15, "l2_reg": 0.0}


def create(*groups, name="hash", adam=ADAM, **options):
    config = models.config_of(name)
    config["optimizer"] = {"otype": "ParamGroups", "nested": adam, "groups": list(groups)}
    n_in, n_out, _ = models.MODELS[name]
    return numbanet.create_from_config(n_in, n_out, config, device="cpu", **options)


def moved(model, n_steps=1, name="hash"):
    """How far each level and matrix has moved, at most."""
    network = model.network
    parts = {level.name: level.params for level in network.levels}
    parts |= {name: view for name, view in network.named_parameters().items() if "net" in name}
    before = {name: np.array(view) for name, view in parts.items()}
    for step in range(n_steps):
        model.trainer.training_step(*models.batch_of(name, 100, step))
    return {name: np.abs(view - before[name]).max() for name, view in parts.items()}


def test_levels_learn_at_rates_of_their_own():
    model = create(
        {"parts": "encoding.levels.[01]", "learning_rate_factor": 0.0},
        {"parts": ["encoding.levels.2", "network.0"], "learning_rate_factor": 0.1},
        {"parts": "encoding.*", "learning_rate_factor": 2.0},
    )
    found = moved(model)
    expected = dict.fromkeys(found, 1e-2) | {
        "encoding.levels.0": 0,
        "encoding.levels.1": 0,
        "encoding.levels.2": 1e-3,
        "encoding.levels.3": 2e-2,
        "network.0": 1e-3,
    }
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-7)
    changed = {"optimizer": {"groups": [{"parts": "encoding.levels.3"}]}}
    model.trainer.update_hyperparams(changed)
    assert moved(model)["encoding.levels.0"] > 0


def test_biases_have_names_and_are_no_matrices():
    adam = {**ADAM, "optimize_matrix_params": False}
    model = create(
        {"parts": "network.biases.1", "learning_rate_factor": 0.1}, name="biased", adam=adam
    )
    found = moved(model, name="biased")
    expected = dict.fromkeys(found, 1e-2) | {f"network.{k}": 0 for k in range(3)}
    assert found == pytest.approx(expected | {"network.biases.1": 1e-3}, rel=1e-3, abs=1e-7)


def test_weights_decay_by_part_and_with_the_learning_rate():
    """What has no gradient shrinks by the learning rate times the decay."""
    model = create({"parts": "encoding.levels.3", "weight_decay": 2.0})
    level = model.network.levels[3]
    level.params[:] = 1
    other = model.network.levels[2]
    other.params[:] = 1
    x = np.full((10, 2), 0.5)
    model.trainer.training_step(x, np.zeros((10, 3)))
    untouched = np.abs(np.asarray(level.gradients)).max(axis=1) == 0
    assert untouched.sum() > 50
    assert level.params[untouched] == pytest.approx(1 - 1e-2 * 2.0)
    untouched = np.abs(np.asarray(other.gradients)).max(axis=1) == 0
    assert (other.params[untouched] == 1).all()


def test_snapshots_and_schedules_keep_groups(tmp_path):
    model = create({"parts": "network.*", "learning_rate_factor": 0.5, "weight_decay": 0.1})
    moved(model, 3)
    model.save(tmp_path / "model.safetensors")
    loaded = numbanet.load(tmp_path / "model.safetensors", device="cpu")
    assert loaded.trainer.optimizer == model.trainer.optimizer
    assert moved(loaded, 2) == moved(model, 2)
    assert model.trainer.learning_rate == 1e-2


def test_parts_of_composed_models_are_groups():
    n_in, n_out, config = COMPOSED["two heads"]
    groups = [{"parts": "density.*", "learning_rate_factor": 0.0}]
    optimizer = {"otype": "ParamGroups", "nested": {"otype": "SGD"}, "groups": groups}
    model = numbanet.create_from_config(
        n_in, n_out, {**config, "optimizer": optimizer}, device="cpu"
    )
    before = {k: np.array(v) for k, v in model.network.named_parameters().items()}
    x = np.random.default_rng(0).random((20, n_in))
    model.trainer.training_step(x, np.ones((20, n_out)))
    for name, view in model.network.named_parameters().items():
        assert (view == before[name]).all() == name.startswith("density.")


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"parts": "encoding.levels.9"}], r"groups\[0\]\.parts: .* name no part; there are"),
        ([{"parts": "network.*"}, {"parts": ["x"]}], r"groups\[1\]\.parts: \['x'\] name no part"),
        ([{"parts": []}], r"groups\[0\]\.parts: expected a name or a list"),
        ([{}], r"groups\[0\]\.parts"),
        ([{"parts": "network.0", "weight_decay": -1}], r"groups\[0\]\.weight_decay: -1"),
        ([{"parts": "network.0", "learning_rate_factor": "2"}], r"\.learning_rate_factor"),
        (["network.0"], r"groups\[0\]: expected a JSON object"),
    ],
)
def test_groups_that_cannot_be_are_refused(groups, message):
    with pytest.raises(numbanet.ConfigError, match=message):
        create(*groups)


def test_averages_belong_around_groups():
    config = {"otype": "ParamGroups", "nested": {"otype": "EMA"}}
    with pytest.raises(numbanet.ConfigError, match="put ParamGroups into it"):
        numbanet.create_optimizer(config)
    assert numbanet.create_optimizer({"otype": "EMA", "nested": {"otype": "ParamGroups"}})
