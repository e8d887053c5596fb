"""Training: the semantics of a step, many steps against the twin, and what must not matter."""

import contextlib
import json
import math
import os
import subprocess
import sys
import warnings
from pathlib import Path

import models
import naive
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_close, compiles_nothing
from models import MODELS

import numbanet
from numbanet.cpu.training_plan import TrainingPlan

TOLERANCE = {"loss": 1e-5, "gradient": 2e-4}
NAMES = ["hash", "smooth", "one_blob"]


def twin_of(name, model):
    return naive.Trainer(*MODELS[name], model.network.params)


@contextlib.contextmanager
def n_threads(n):
    before = numba.get_num_threads()
    numba.set_num_threads(n)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def train(model, name, n_steps, n=200, first=0, **options):
    """The losses of some steps; batch k is the same in every run."""
    return [
        float(model.trainer.training_step(*models.batch_of(name, n, k), **options))
        for k in range(first, first + n_steps)
    ]


# One step


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_match_the_twin(name):
    model, twin_model = models.create_lively(name)
    network, twin = model.network, twin_of(name, model)
    x = models.inputs_of(twin_model, 150, params=network.params)
    targets = np.random.default_rng(1).normal(size=(150, network.n_output_dims))
    targets = targets.astype(np.float32)
    before = network.params.copy()
    loss = model.trainer.training_step(x, targets, run_optimizer=False)
    expected = twin.loss_and_gradients(x, targets)
    assert math.isclose(float(loss), expected[0], rel_tol=TOLERANCE["loss"])
    assert_gradients_close(network, expected[2])
    np.testing.assert_array_equal(network.params, before)
    assert model.trainer.n_steps == 0


def assert_gradients_close(network, expected):
    n_network = network.network.n_params
    for part in (slice(None, n_network), slice(n_network, None)):
        assert_close(network.gradients[part], expected[part], TOLERANCE["gradient"])


def test_density_and_input_gradient_match_the_twin():
    model, twin_model = models.create_lively("hash")
    network, twin = model.network, twin_of("hash", model)
    x = models.inputs_of(twin_model, 150, params=network.params)
    rng = np.random.default_rng(1)
    targets = rng.normal(size=(150, 3)).astype(np.float32)
    pdf = rng.uniform(0.2, 3, (150, 3)).astype(np.float32)
    dl_dx = np.full(x.shape, np.nan, np.float32)
    loss = model.trainer.training_step(x, targets, pdf, run_optimizer=False, dl_dinput=dl_dx)
    expected = twin.loss_and_gradients(x, targets, pdf)
    assert math.isclose(float(loss), expected[0], rel_tol=TOLERANCE["loss"])
    assert_close(dl_dx, expected[1], TOLERANCE["gradient"])
    assert_gradients_close(network, expected[2])


def test_loss_is_lazy_and_stays():
    model = models.create("hash")
    x, targets = models.batch_of("hash", 100)
    first = model.trainer.training_step(x, targets)
    second = model.trainer.training_step(x, targets)
    values = float(first), float(second)
    assert values[0] != values[1]
    model.trainer.training_step(x, targets)
    assert (float(first), float(second)) == values
    assert f"{first:.3f}" == f"{values[0]:.3f}"


def test_loss_is_the_mean_over_samples_and_dims():
    model = models.create("hash")
    x, targets = models.batch_of("hash", 77)
    y = model.network(x).astype(np.float64)
    loss = model.trainer.training_step(x, targets, run_optimizer=False)
    assert math.isclose(float(loss), np.mean((y - targets) ** 2), rel_tol=TOLERANCE["loss"])


def test_external_gradient_replaces_that_of_the_loss():
    model, twin = models.create_lively("smooth")
    network = model.network
    x = models.inputs_of(twin, 60, params=network.params)
    rng = np.random.default_rng(0)
    dl_dy = rng.normal(size=(60, 2)).astype(np.float32)
    targets = rng.normal(size=(60, 2)).astype(np.float32)
    expected = twin.backward(x, network.params, dl_dy.astype(np.float64))
    for given_targets in (None, targets):
        network.gradients[:] = 3
        dl_dx = np.empty_like(x)
        loss = model.trainer.training_step(x, given_targets, None, False, dl_dx, dl_dy)
        assert_close(dl_dx, expected[0], TOLERANCE["gradient"])
        assert_close(network.gradients, expected[1], TOLERANCE["gradient"])
    y = network(x).astype(np.float64)
    value = naive.loss({"otype": "RelativeL2"})(y, targets, np.ones_like(y))[0].mean()
    assert math.isclose(float(loss), value, rel_tol=TOLERANCE["loss"])


def test_targets_are_needed():
    model = models.create("hash")
    with pytest.raises(ValueError, match="targets"):
        model.trainer.training_step(np.zeros((4, 2)), None)


def test_gradient_modes():
    model = models.create("hash")
    network, trainer = model.network, model.trainer
    x, targets = models.batch_of("hash", 100)
    network.gradients[:] = 9
    trainer.training_step(x, targets, run_optimizer=False)
    once = network.gradients.copy()
    trainer.training_step(x, targets, run_optimizer=False, gradient_mode="accumulate")
    assert_close(network.gradients, 2 * once, 1e-6)
    twice, params = network.gradients.copy(), network.params.copy()
    loss = trainer.training_step(x, targets, gradient_mode="ignore")
    np.testing.assert_array_equal(network.gradients, twice)
    np.testing.assert_array_equal(network.params, params)
    assert float(loss) == float(trainer.training_step(x, targets, run_optimizer=False))
    with pytest.raises(ValueError, match=r"gradient_mode.*sum.*accumulate"):
        trainer.training_step(x, targets, gradient_mode="sum")


@settings(max_examples=10)
@given(n=st.integers(2, 700), cut=st.floats(0, 1))
def test_two_accumulated_parts_are_the_whole_batch(n, cut):
    """Each part's loss is a mean, so the parts count by their size."""
    model, _ = models.create_lively("hash")
    network, trainer = model.network, model.trainer
    x, targets = models.batch_of("hash", n)
    whole_dl_dx, dl_dx = np.empty_like(x), np.empty_like(x)
    trainer.training_step(x, targets, np.ones_like(targets), False, whole_dl_dx)
    whole = network.gradients.copy()
    first = int(cut * n)
    network.gradients[:] = 0
    for rows in (slice(0, first), slice(first, n)):
        pdf = np.full_like(targets[rows], n / max(1, len(x[rows])))
        trainer.training_step(
            x[rows], targets[rows], pdf, False, dl_dx[rows], gradient_mode="accumulate"
        )
    assert_close(network.gradients, whole, 2e-6)
    assert_close(dl_dx, whole_dl_dx, 2e-6)


def test_an_accumulated_step_is_the_step_on_the_whole_batch():
    x, targets = models.batch_of("hash", 128)
    whole, parts = models.create("hash"), models.create("hash")
    whole.trainer.training_step(x, targets)
    half, dl_dx = np.full((64, 3), 2.0), np.empty((64, 2), np.float32)
    parts.trainer.training_step(x[:64], targets[:64], half, False, dl_dx)
    parts.trainer.training_step(x[64:], targets[64:], half, True, dl_dx, gradient_mode="accumulate")
    network = slice(0, parts.network.network.n_params)
    assert_close(parts.network.params[network], whole.network.params[network], 1e-4)
    assert parts.trainer.n_steps == 1


def test_a_batch_of_several_slabs_is_the_sum_of_its_parts():
    """Features are kept for some ten thousand rows at a time."""
    model, _ = models.create_lively("hash")
    network, trainer = model.network, model.trainer
    n = 2 * TrainingPlan(network.engine.model, trainer.loss).slab_rows + 77
    x, targets = models.batch_of("hash", n)
    loss = float(trainer.training_step(x, targets, run_optimizer=False))
    whole = network.gradients.astype(np.float64)
    total, losses = np.zeros(network.n_params), []
    for rows in np.array_split(np.arange(n), 10):
        part = trainer.training_step(x[rows], targets[rows], run_optimizer=False)
        losses.append(float(part) * len(rows))
        total += network.gradients.astype(np.float64) * len(rows)
    assert math.isclose(loss, sum(losses) / n, rel_tol=TOLERANCE["loss"])
    assert_close(whole, total / n, 1e-5)


def test_dl_dinput_is_checked():
    trainer = models.create("hash").trainer
    x, targets = models.batch_of("hash", 10)
    read_only = np.zeros((10, 2), np.float32)
    read_only.flags.writeable = False
    for wrong in (
        np.zeros((10, 3), np.float32),
        np.zeros((9, 2), np.float32),
        np.zeros((10, 2)),
        np.zeros((2, 10), np.float32).T,
        read_only,
        [[0.0, 0.0]] * 10,
    ):
        with pytest.raises((ValueError, TypeError), match="dl_dinput"):
            trainer.training_step(x, targets, dl_dinput=wrong)
    assert trainer.n_steps == 0


def test_dl_dinput_must_not_overwrite_the_batch():
    """The encoding's backward pass reads the inputs again, after dl_dinput is written."""
    trainer = models.create("one_blob").trainer
    x, targets = models.batch_of("one_blob", 10)
    for name in ("inputs", "targets"):
        arrays = {"inputs": x.copy(), "targets": targets.copy()}
        with pytest.raises(ValueError, match="dl_dinput"):
            trainer.training_step(**arrays, dl_dinput=arrays[name])
    for name in ("params", "gradients"):
        own = getattr(trainer.network, name)[: x.size].reshape(x.shape)
        with pytest.raises(ValueError, match=f"dl_dinput: shares memory with {name}"):
            trainer.training_step(x, targets, dl_dinput=own)
    assert trainer.n_steps == 0


def test_inference_params_without_an_average_are_the_params():
    first, second = models.create("hash"), models.create("hash")
    x, targets = models.batch_of("hash", 50)
    first.trainer.training_step(x, targets)
    second.trainer.training_step(x, targets, use_inference_params=True)
    np.testing.assert_array_equal(first.network.params, second.network.params)
    np.testing.assert_array_equal(first(x), first.network(x))


@pytest.mark.parametrize("n", [0, 1])
def test_smallest_batches(n):
    model = models.create("hash")
    x, targets = models.batch_of("hash", n)
    before = model.network.params.copy()
    loss = float(model.trainer.training_step(x, targets))
    assert math.isfinite(loss)
    assert (model.network.params != before).any() == (n > 0)
    assert model.trainer.n_skipped_steps == 0


# Many steps


@pytest.mark.parametrize("name", NAMES)
def test_learning_follows_the_twin(name):
    model, twin_model = models.create_lively(name)
    twin = twin_of(name, model)
    start = model.network.params.astype(np.float64)
    for k in range(8):
        x = models.inputs_of(twin_model, 100, seed=k)
        targets = models.batch_of(name, 100, seed=k)[1]
        loss = model.trainer.training_step(x, targets)
        assert math.isclose(float(loss), twin.training_step(x, targets), rel_tol=1e-3)
    assert model.trainer.n_steps == 8
    assert_close(model.network.params - start, twin.params - start, 2e-2)


@pytest.mark.parametrize("name", NAMES)
def test_loss_goes_down(name):
    model = models.create(name)
    losses = train(model, name, 200)
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("n", [1, 77, 5000])
@pytest.mark.parametrize("name", ["hash", "one_blob"])
def test_training_is_the_same_twice_and_with_any_number_of_threads(name, n):
    results = []
    for threads in (numba.config.NUMBA_NUM_THREADS, 1, numba.config.NUMBA_NUM_THREADS):
        with n_threads(threads):
            model = models.create(name)
            losses = train(model, name, 3, n)
        results.append((losses, model.network.params.copy(), model.network.gradients.copy()))
    for result in results[1:]:
        for first, second in zip(results[0], result, strict=True):
            np.testing.assert_array_equal(first, second)


def image(size=64):
    """A picture with smooth parts, edges and stripes, float32 [size, size, 3] in [0, 1]."""
    y, x = np.mgrid[:size, :size] / size
    disc = (x - 0.4) ** 2 + (y - 0.6) ** 2 < 0.08
    stripes = 0.5 + 0.5 * np.sin(40 * (x + y))
    channels = [0.2 + 0.6 * x, np.where(disc, 0.9, 0.3 * y), 0.3 + 0.5 * stripes * disc]
    return np.stack(channels, axis=-1).astype(np.float32)


def test_an_image_is_learned():
    picture = image()
    size = len(picture)
    model = models.create("hash")
    rng = np.random.default_rng(0)
    for _ in range(600):
        row, column = rng.integers(0, size, (2, 2048))
        x = (np.stack([column, row], axis=1) + 0.5) / size
        model.trainer.training_step(x, picture[row, column])
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    learned = model.network(np.stack([x.ravel(), y.ravel()], axis=1))
    error = np.mean((learned.reshape(picture.shape) - picture) ** 2)
    assert -10 * np.log10(error) > 24


# What is not finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("where", ["inputs", "targets"])
def test_a_step_that_is_not_finite_is_skipped(where, value):
    model = models.create("product")
    train(model, "product", 2)
    x, targets = models.batch_of("product", 300)
    arrays = {"inputs": x, "targets": targets}
    arrays[where][137, 0] = value
    params = model.network.params.copy()
    state = model.trainer.optimizer_state.copy()
    with pytest.warns(RuntimeWarning, match="NaN"):
        loss = model.trainer.training_step(**arrays)
    assert where == "inputs" or not math.isfinite(float(loss))
    np.testing.assert_array_equal(model.network.params, params)
    np.testing.assert_array_equal(model.trainer.optimizer_state, state)
    assert model.trainer.n_skipped_steps == 1
    assert model.trainer.n_steps == 2
    train(model, "product", 1)  # goes on as if nothing had been
    assert model.trainer.n_steps == 3
    assert np.isfinite(model.network.params).all()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_a_density_that_gives_no_finite_loss_is_skipped(value):
    model = models.create("hash")
    x, targets = models.batch_of("hash", 300)
    pdf = np.ones_like(targets)
    pdf[137, 0] = value
    params = model.network.params.copy()
    with pytest.warns(RuntimeWarning, match="NaN"):
        model.trainer.training_step(x, targets, pdf, dl_dinput=np.empty_like(x))
    np.testing.assert_array_equal(model.network.params, params)


def test_a_grid_survives_inputs_that_are_not_finite():
    model = models.create("hash")
    x, targets = models.batch_of("hash", 300)
    expected = model.network(x)
    x[5] = np.nan, 0.5
    x[7] = np.inf, -np.inf
    x[9] = 3e38, -1e20
    y = model.network(x)
    others = np.setdiff1d(np.arange(300), [5, 7, 9])
    np.testing.assert_array_equal(y[others], expected[others])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model.trainer.training_step(x, targets)
    assert np.isfinite(model.network.params).all()


def test_overflow_of_a_gradient_is_noticed():
    """The loss is given from outside here, so only the gradients can tell."""
    model = models.create("product")
    x, _ = models.batch_of("product", 64)
    before = model.network.params.copy()
    huge = np.full((64, 2), 3e38, np.float32)
    with pytest.warns(RuntimeWarning, match="gradient"):
        model.trainer.training_step(x, None, dl_dinput=np.empty_like(x), external_dl_dy=huge)
    np.testing.assert_array_equal(model.network.params, before)


def test_raise_on_what_is_not_finite():
    model = models.create("hash", on_nonfinite="raise")
    x, targets = models.batch_of("hash", 30)
    targets[3] = np.nan
    before = model.network.params.copy()
    with pytest.raises(FloatingPointError):
        model.trainer.training_step(x, targets)
    np.testing.assert_array_equal(model.network.params, before)


# Hyper-parameters


def test_changing_the_learning_rate_compiles_nothing_and_works():
    name = "one_blob"  # SGD: steps are proportional to the rate
    model, other = models.create(name), models.create(name)
    train(model, name, 1)
    train(other, name, 1)
    before = model.network.params.copy()
    half = other.trainer.learning_rate / 2
    with compiles_nothing():
        model.trainer.learning_rate = half
        assert model.trainer.learning_rate == half
        train(model, name, 1, first=1)
        train(other, name, 1, first=1)
    small, large = (m.network.params - before for m in (model, other))
    assert_close(2 * small, large, 1e-3)
    with compiles_nothing():
        other.trainer.update_hyperparams({"optimizer": {"learning_rate": half}})
        train(other, name, 2, first=1)
    assert other.trainer.learning_rate == half


def test_a_second_model_of_equal_config_compiles_nothing():
    name = "hash"
    train(models.create(name), name, 1)
    models.create(name).network(np.zeros((3, 2)))
    with compiles_nothing():
        model = models.create(name, seed=99)
        train(model, name, 2, n=31)
        train(model, name, 1, n=1000)
        model.network(np.zeros((3, 2)))


def test_hyperparams_keep_what_is_not_named():
    model = models.create("hash")
    model.trainer.update_hyperparams({"optimizer": {"beta1": 0.5}, "loss": {}})
    assert model.trainer.optimizer.beta1 == 0.5
    assert model.trainer.optimizer.epsilon == 1e-15
    assert model.trainer.learning_rate == 1e-2


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"learning_rate": math.nan}},
        {"optimizer": {"learning_rate": -1.0}},
        {"optimizer": {"beta1": "x"}},
        {"optimizer": {"beta3": 0.5}},
        {"optimizer": 3},
        {"encoding": {"n_levels": 3}},
    ],
)
def test_wrong_hyperparams_change_nothing(change):
    model = models.create("hash")
    before = model.trainer.optimizer
    with pytest.raises(numbanet.ConfigError, match=next(iter(change))):
        model.trainer.update_hyperparams(change)
    assert model.trainer.optimizer == before


def test_written_config_makes_an_equal_model():
    model = models.create("smooth")
    config = json.loads(json.dumps(model.trainer.config()))
    again = numbanet.create_from_config(3, 2, config, device="cpu")
    assert again.network.encoding == model.network.encoding
    assert again.network.network == model.network.network
    assert again.trainer.loss == model.trainer.loss
    assert again.trainer.optimizer == model.trainer.optimizer


# Memory

MEASURED_STEP = """
import models
from pathlib import Path

def kibibytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))

model = models.create("hash")
model.trainer.training_step(*models.batch_of("hash", 1000))
x, targets = models.batch_of("hash", 1 << 18)
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
before = kibibytes("VmRSS:")
model.trainer.training_step(x, targets)
print(1024 * (kibibytes("VmHWM:") - before), model.network.params.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's peak memory")
def test_a_step_needs_little_memory():
    """At most 3x the parameters and 200 bytes per sample, beside what is there before."""
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", MEASURED_STEP],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])},
        capture_output=True,
        text=True,
        check=True,
    )
    peak, n_param_bytes = map(int, done.stdout.split())
    assert peak <= 3 * n_param_bytes + 200 * (1 << 18)


def test_loading_takes_the_options_over(tmp_path):
    """A snapshot goes on as it was, whatever the options of the trainer that loads it."""
    x, y = models.batch_of("hash", 64)
    first = models.create("hash")
    first.trainer.training_step(x, y)
    first.save(tmp_path / "snapshot")
    config = models.config_of("hash")
    config["optimizer"] = {"otype": "Adam", "learning_rate": 0.5}
    config["loss"] = {"otype": "L1"}
    second = numbanet.create_from_config(2, 3, config, device="cpu")
    second.load(tmp_path / "snapshot")
    assert second.trainer.optimizer == first.trainer.optimizer
    assert second.trainer.loss == first.trainer.loss


def test_input_gradient_is_at_the_parameters_for_inference():
    model = models.create("hash")
    x, _ = models.batch_of("hash", 7)
    ours = model.input_gradient(1, x)
    np.testing.assert_array_equal(ours, model.network.input_gradient(1, x))


def test_what_is_no_component_is_refused():
    model = models.create("hash")
    network, optimizer, loss = model.network, model.trainer.optimizer, model.trainer.loss
    for components, message in (
        ((model, optimizer, loss), "model: expected what numbanet.create_"),
        ((network, {"otype": "Adam"}, loss), r"optimizer: .*create_optimizer makes, got \{'otype'"),
        ((network, loss, optimizer), "optimizer: .*, got "),
        ((network, optimizer, "L2"), "loss: .*create_loss makes, got 'L2'"),
    ):
        with pytest.raises(TypeError, match=message):
            numbanet.Trainer(*components)
    for comm in ("MPI", 2, True):
        with pytest.raises(TypeError, match=r"comm: expected what .*init returns, got ('MPI'|2|T)"):
            models.create("hash", comm=comm)
        with pytest.raises(TypeError, match="comm: expected what"):
            numbanet.Trainer(network, optimizer, loss, comm=comm)


def test_components_are_checked_when_they_are_assigned():
    trainer = models.create("hash").trainer
    before = trainer.optimizer, trainer.loss
    for name in ("optimizer", "loss"):
        for value in (None, "Adam", {"otype": "L2"}, trainer.network):
            with pytest.raises(TypeError, match=rf"{name}: expected .*create_{name} makes, got "):
                setattr(trainer, name, value)
    with pytest.raises(numbanet.ConfigError, match=r"optimizer: .* state's size or meaning"):
        trainer.optimizer = numbanet.create_optimizer({"otype": "SGD"})
    assert (trainer.optimizer, trainer.loss) == before
    trainer.loss = numbanet.create_loss({"otype": "L1"})
    assert math.isfinite(float(trainer.training_step(*models.batch_of("hash", 7))))


@pytest.mark.parametrize("name", ["run_optimizer", "use_inference_params"])
def test_flags_of_a_step_are_checked(name):
    trainer = models.create("hash").trainer
    x, targets = models.batch_of("hash", 7)
    for value in ("no", 0, None):
        with pytest.raises(ValueError, match=f"{name}: .* is not allowed; use True or False"):
            trainer.training_step(x, targets, **{name: value})
    trainer.training_step(x, targets, **{name: np.bool_(False)})
    assert trainer.n_steps == int(name != "run_optimizer")
