"""Models of several parts, and encodings by themselves, in a trainer: against float64 twins."""

import copy
import pickle

import laws
import naive
import numpy as np
import pytest
from composed_models import COMPOSED, SGD, batch_of, created
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_close
from models import HASH, mlp

import numbanet
from numbanet.optimizers.base import ParamLayout

names = pytest.mark.parametrize("name", COMPOSED)


def named(twin, vectors):
    """Arrays by name, of the vectors of the parts."""
    found = {}
    for part, vector in vectors.items():
        at = 0
        for key, shape in twin.parts[part].named(f"{part}."):
            found[key] = vector[at : at + int(np.prod(shape))].reshape(shape)
            at += found[key].size
    return found


@names
def test_a_composed_model_follows_its_twin(name):
    """Names, outputs, loss, and gradients of parameters and inputs."""
    model, twin, params = created(name)
    network = model.network
    assert list(network.named_shapes().items()) == list(twin.named())
    x, targets = batch_of(name, 150)
    expected = twin.forward(x, params)
    assert_close(model(x), expected, 1e-5)
    dl_dx = np.empty_like(x)
    loss = model.trainer.training_step(x, targets, run_optimizer=False, dl_dinput=dl_dx)
    config = COMPOSED[name][2]
    value, gradient = naive.loss(config["loss"])(expected, targets, 1.0)
    assert float(loss) == pytest.approx(value.mean(), rel=1e-5)
    dl_dinput, dl_dparams = twin.backward(x, params, gradient / expected.size)
    assert_close(dl_dx, dl_dinput, 2e-4)
    for key, of_twin in named(twin, dl_dparams).items():
        assert_close(network.named_gradients()[key], of_twin, 2e-4)
    y, context = network.forward(x)
    dl_dy = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    dl_dinput, dl_dparams = twin.backward(x, params, dl_dy)
    assert_close(network.backward(context, dl_dy, gradient_mode="accumulate"), dl_dinput, 2e-4)
    ignored = network.backward(context, dl_dy, gradient_mode="ignore")
    assert_close(ignored, dl_dinput, 2e-4)


@names
def test_second_derivatives_are_those_of_differences(name):
    """Of the twin's gradient of the inputs along a direction, in float64."""
    model, twin, params = created(name)
    x, _ = batch_of(name, 40)
    rng = np.random.default_rng(3)
    y, context = model.network.forward(x)
    dl_dy = rng.normal(size=y.shape).astype(np.float32)
    along = rng.normal(size=x.shape).astype(np.float32)
    dl_ddy, dl_dx = model.network.double_backward(context, dl_dy, along)
    x, along = x.astype(np.float64), along.astype(np.float64)

    def slope(x, params, dl_dy):
        return twin.backward(x, params, dl_dy)[0]

    step = 1e-6
    tangents = (twin.forward(x + step * along, params) - twin.forward(x - step * along, params)) / (
        2 * step
    )
    assert_close(dl_ddy, tangents, 1e-3)
    for d in range(x.shape[1]):
        e = np.eye(x.shape[1])[d] * step
        ahead, behind = slope(x + e, params, dl_dy), slope(x - e, params, dl_dy)
        expected = ((ahead - behind) / (2 * step) * along).sum(axis=1)
        assert np.abs(dl_dx[:, d] - expected).max() <= 2e-3 * np.abs(dl_dx).max()
    gradients = {key: np.asarray(view) for key, view in model.network.named_gradients().items()}
    for part in params:
        toward = rng.normal(size=params[part].size)
        ahead, behind = ({**params, part: params[part] + s * step * toward} for s in (1, -1))
        difference = slope(x, ahead, dl_dy) - slope(x, behind, dl_dy)
        expected = (difference * along).sum() / (2 * step)
        mine = [gradients[key].ravel() for key, _ in twin.parts[part].named(f"{part}.")]
        found = (np.concatenate([np.zeros(0), *mine]) * toward).sum()
        scale = sum(np.abs(each).sum() for each in mine)
        assert abs(found - expected) <= 1e-3 * max(scale, 1e-3)


@names
def test_a_step_descends_along_the_twins_gradient(name):
    model, twin, params = created(name)
    x, targets = batch_of(name, 150)
    before = {key: np.array(view) for key, view in model.network.named_parameters().items()}
    model.trainer.training_step(x, targets)
    y = twin.forward(x, params)
    _, gradient = naive.loss(COMPOSED[name][2]["loss"])(y, targets, 1.0)
    _, dl_dparams = twin.backward(x, params, gradient / y.size)
    for key, of_twin in named(twin, dl_dparams).items():
        after = model.network.named_parameters()[key]
        assert_close(after, before[key] - 0.1 * of_twin, 1e-6)


@names
def test_configs_snapshots_copies_and_summaries(name, tmp_path):
    model, *_ = created(name)
    x, targets = batch_of(name, 60)
    model.trainer.training_step(x, targets)
    model.save(tmp_path / "model.safetensors")
    config = model.trainer.config()
    n_in, n_out, _ = COMPOSED[name]
    again = numbanet.create_from_config(n_in, n_out, config, device="cpu")
    assert again.trainer.config() == config
    again.load(tmp_path / "model.safetensors")
    loaded = numbanet.load(tmp_path / "model.safetensors", device="cpu")
    copies = pickle.loads(pickle.dumps(model)), copy.deepcopy(model)
    for other in (again, loaded, *copies):
        np.testing.assert_array_equal(other(x), model(x))
        assert other.trainer.n_steps == 1
    text = str(model.summary())
    for part, options in COMPOSED[name][2]["parts"].items():
        assert f"{part}." in text
        assert ("shares" in options) == (f"{part}: " not in text)
    last = list(config["parts"])[-1]
    reordered = {**config, "outputs": [f"{last}[1:]", f"{last}[0]"]}
    other = numbanet.create_from_config(n_in, None, reordered, device="cpu")
    with pytest.raises(numbanet.SnapshotError, match=r"n_output_dims|the outputs is"):
        other.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("n", [0, 1, 129])
def test_any_batch_size_in_any_order(n):
    """Memory between the parts grows and is used again."""
    model, twin, params = created("shared")
    for rows in (n, 300, n):
        x, targets = batch_of("shared", rows)
        y = model(x)
        assert y.shape == (rows, 3)
        assert_close(y, twin.forward(x, params), 1e-5)
        model.trainer.training_step(x, targets, run_optimizer=False)


def test_nan_in_a_row_stays_in_that_row():
    model, *_ = created("shared")
    x, targets = batch_of("shared", 20)
    x[3, 4] = np.nan
    y = model(x)
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()
    before = np.array(model.network.params)
    with pytest.warns(RuntimeWarning, match="skipped"):
        model.trainer.training_step(x, targets)
    np.testing.assert_array_equal(model.network.params, before)


@pytest.mark.parametrize("alignment", [0, 16])
def test_an_encoding_trains_in_a_trainer_of_its_own(alignment, tmp_path):
    encoding = numbanet.create_encoding(2, HASH, device="cpu", alignment=alignment)
    twin = naive.encoding(HASH, 2)
    table = np.random.default_rng(0).normal(size=encoding.n_params).astype(np.float32)
    encoding.params = table
    optimizer, loss = numbanet.create_optimizer(SGD), numbanet.create_loss({"otype": "L2"})
    trainer = numbanet.Trainer(encoding, optimizer, loss)
    x = batch_of("two heads", 90)[0][:, :2].copy()
    n_outputs = encoding.n_output_dims
    assert n_outputs == (alignment or 8)
    targets = np.zeros((90, n_outputs), np.float32)
    dl_dx = np.empty_like(x)
    value = trainer.training_step(x, targets, dl_dinput=dl_dx)
    y = twin.forward(x.astype(np.float64), table)
    assert float(value) == pytest.approx((y**2).sum() / (90 * n_outputs), rel=1e-5)
    dl_dy = 2 * y / (90 * n_outputs)
    expected = twin.backward_params(x.astype(np.float64), table.astype(np.float64), dl_dy)
    assert_close((table - encoding.params) / 0.1, expected, 1e-3)
    assert_close(dl_dx, twin.backward_input(x.astype(np.float64), table, dl_dy), 1e-4)
    model = numbanet.TrainableModel(encoding, trainer)
    model.save(tmp_path / "encoding.safetensors")
    loaded = numbanet.load(tmp_path / "encoding.safetensors", device="cpu")
    assert type(loaded.network) is numbanet.Encoding
    np.testing.assert_array_equal(loaded(x), model(x))
    assert trainer.config()["network"] is None
    assert pickle.loads(pickle.dumps(trainer)).n_steps == 1
    assert "Grid" in repr(trainer)


@pytest.mark.parametrize(("otype", "config", "sizes"), laws.examples("encoding"), ids=str)
def test_any_encoding_alone_comes_back_from_its_snapshot(otype, config, sizes, tmp_path):
    encoding = numbanet.create_encoding(sizes["n_dims"], {**config, "otype": otype}, device="cpu")
    optimizer, loss = numbanet.create_optimizer(SGD), numbanet.create_loss({"otype": "L2"})
    model = numbanet.TrainableModel(encoding, numbanet.Trainer(encoding, optimizer, loss))
    model.save(tmp_path / "m")
    loaded = numbanet.load(tmp_path / "m", device="cpu")
    assert loaded.network.encoding == encoding.encoding
    x = np.random.default_rng(0).random((5, sizes["n_dims"]), np.float32)
    np.testing.assert_array_equal(loaded(x), encoding(x))


def test_an_encoding_alone_may_come_from_a_config():
    config = {"encoding": HASH, "network": None, "optimizer": SGD, "loss": {"otype": "L2"}}
    model = numbanet.create_from_config(2, None, config, device="cpu")
    assert type(model.network) is numbanet.Encoding
    assert numbanet.create_from_config(2, 16, config, device="cpu").network.n_output_dims == 16
    for n_outputs in (7, 9, 0, True):
        with pytest.raises(ValueError, match="n_output_dims"):
            numbanet.create_from_config(2, n_outputs, config, device="cpu")
    config["encoding"] = {"otype": "Empty"}
    assert numbanet.create_from_config(2, 0, config, device="cpu").network.n_output_dims == 0
    with pytest.raises(numbanet.ConfigError, match="has 0 features; n_output_dims is 3"):
        numbanet.create_from_config(2, 3, config, device="cpu")
    with pytest.raises(numbanet.ConfigError, match="and there are no parts"):
        numbanet.create_from_config(2, None, {**config, "outputs": ["a"]}, device="cpu")


def test_a_network_trains_in_a_trainer_of_its_own():
    network = numbanet.create_network(5, 17, mlp("CutlassMLP", 100, 2, "SiLU"), device="cpu")
    optimizer, loss = numbanet.create_optimizer({}), numbanet.create_loss({"otype": "L2"})
    trainer = numbanet.Trainer(network, optimizer, loss)
    x = np.random.default_rng(0).random((50, 5))
    losses = [float(trainer.training_step(x, np.zeros((50, 17)))) for _ in range(20)]
    assert losses[-1] < losses[0]


def wrong(**changes):
    """A part of "two heads" with other options; None leaves one out."""
    config = copy.deepcopy(COMPOSED["two heads"][2])
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = config
        for key in parents:
            at = at[key]
        at[last] = value
    return config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {}}, "parts: expected an object"),
        ({"parts": [1]}, "parts: expected an object"),
        ({"parts__density": 3}, r"parts\.density: expected a JSON object"),
        ({"parts__density__inputs": "input[0:9]"}, r"parts\.density\.inputs: .*4 columns of input"),
        ({"parts__density__inputs": "input[2:1]"}, r"parts\.density\.inputs"),
        ({"parts__density__inputs": "color"}, r"there is no 'color' before it; use input"),
        ({"parts__density__inputs": []}, r"parts\.density\.inputs: expected one name or a list"),
        ({"parts__density__inputs": "input[-1]"}, "names no columns"),
        ({"parts__density__inputs": ["input", 3]}, "3 names no columns"),
        ({"parts__color__n_output_dims": None}, r"parts\.color\.n_output_dims: it is missing"),
        ({"parts__color__n_output_dims": 0}, r"parts\.color\.n_output_dims: 0 is not allowed"),
        ({"parts__color__shares": "density"}, r"parts\.color\.network: it is that of density"),
        ({"parts__color": {"shares": "color"}}, r"parts\.color\.shares: 'color' is no part before"),
        ({"parts__color": {"shares": "density", "inputs": "input[0:3]"}}, "3 columns, and density"),
        ({"parts__color": {"inputs": "density"}}, "neither encoding nor network"),
        ({"parts__color__network": {"n_neurons": -1}}, r"parts\.color\.network\.n_neurons"),
        ({"parts__density__encoding": {"otype": "Gird"}}, r"parts\.density\.encoding\.otype"),
        ({"outputs": ["density", "color"]}, r"they are 20 columns, and n_output_dims is 18"),
        ({"outputs": ["density", "input"]}, "no 'input' before it; use density, color"),
        ({"encoding": HASH}, "encoding: a config with parts"),
        ({"parts__a b": {}}, "no name for a part"),
        ({"parts__input": {}}, "no name for a part"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(numbanet.ConfigError, match=message):
        numbanet.create_from_config(4, 18, wrong(**changes), device="cpu")


def test_what_nothing_reads_is_named():
    with pytest.raises(numbanet.ConfigError, match=r"parts\.color: nothing reads it"):
        numbanet.create_from_config(4, 3, wrong(outputs="density"), device="cpu")
    config = wrong(parts__color__netwrok={})
    with pytest.warns(numbanet.UnknownOptionWarning, match="part has no such option"):
        numbanet.create_composed_model(4, config, device="cpu")
    with pytest.raises(numbanet.ConfigError, match="one encoding and one network"):
        numbanet.create_many(4, 18, COMPOSED["two heads"][2], n=2)


@settings(max_examples=50)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), max_size=4),
    gaps=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_layouts_with_gaps_know_their_matrices(sizes, gaps):
    """Every parameter is in one range, and the matrices are where they are said to be."""
    starts, at = [], gaps[0]
    for size, gap in zip(sizes, gaps[1:], strict=False):
        starts.append(at)
        at += size[0] * size[1] + gap
    layout = ParamLayout(at, tuple(sizes), starts=tuple(starts))
    covered = np.zeros(at, int)
    for m, (first, last) in enumerate(layout.matrix_ranges):
        covered[first:last] += 1
        for i in range(first, last):
            assert layout.matrix_of.py_func(np.uintp(i)) == m
            assert bool(layout.is_matrix.py_func(np.uintp(i))) == (m < len(sizes))
    assert (covered == 1).all()
    assert [first for first, _ in layout.matrix_ranges[: len(sizes)]] == starts


def test_a_config_that_is_none_is_refused():
    with pytest.raises(numbanet.ConfigError, match="config: expected a JSON object, got 4"):
        numbanet.create_composed_model(3, 4)
