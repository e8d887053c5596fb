"""Models: initial weights, inference and gradients against the float64 twin."""

import functools
from concurrent.futures import ThreadPoolExecutor

import models
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from laws import SIZES, assert_close
from models import HASH, MODELS, make_config, mlp

import numbanet

# Largest error, relative to the largest expected entry. The sums of a layer err by a few units of
# the last place; Squareplus and Softplus multiply that by their slope 10, and layers by each other.
TOLERANCE = {"output": 5e-5, "gradient": 2e-4}

# The image config: 2 -> 3
IMAGE = make_config(
    {
        "otype": "HashGrid",
        "n_levels": 16,
        "n_features_per_level": 2,
        "log2_hashmap_size": 15,
        "base_resolution": 16,
        "per_level_scale": 1.5,
    },
    mlp("FullyFusedMLP", 64, 2),
)


@functools.cache
def lively(name):
    return models.create_lively(name)


def check_inference(network, twin, params, n, seed=0):
    x = models.inputs_of(twin, n, seed)
    y = network(x)
    assert y.dtype == np.float32
    assert_close(y, twin.inference(x, params), TOLERANCE["output"])
    return y


def check_gradients(network, twin, params, n, seed=0):
    x = models.inputs_of(twin, n, seed, params)
    dl_dy = np.random.default_rng(seed).normal(size=(n, network.n_output_dims)).astype(np.float32)
    _, context = network.forward(x)
    dl_dx = network.backward(context, dl_dy)
    expected = twin.backward(x, params, dl_dy.astype(np.float64))
    assert_close(dl_dx, expected[0], TOLERANCE["gradient"])
    n_network = twin.mlp.n_params
    for part in (slice(None, n_network), slice(n_network, None)):
        assert_close(network.gradients[part], expected[1][part], TOLERANCE["gradient"])


# Initial values and layout


@pytest.mark.parametrize(
    ("convention", "first"), [("bindings", -0.176150322), ("trainer", -0.192895234)]
)
def test_first_weight_is_the_known_one(convention, first):
    model = numbanet.create_from_config(
        2, 3, IMAGE, seed=1337, device="cpu", seed_convention=convention
    )
    assert model.network.n_params == 715536
    assert model.network.params[0] == np.float32(first)


def test_default_seed_and_convention_are_those_of_the_bindings():
    network = numbanet.create_from_config(2, 3, IMAGE, device="cpu").network
    assert network.params[0] == np.float32(-0.176150322)


@pytest.mark.parametrize("convention", ["bindings", "trainer"])
@pytest.mark.parametrize("seed", [1337, 0, 2**31])
@pytest.mark.parametrize("name", ["hash", "smooth", "identity", "linear", "biased"])
def test_initial_params_match_the_twin(name, seed, convention):
    twin = naive.Model(*MODELS[name])
    network = models.create(name, seed=seed, seed_convention=convention).network
    assert network.params.dtype == np.float32
    np.testing.assert_allclose(
        network.params, twin.initial_params(seed, convention), rtol=3e-7, atol=3e-8
    )


def test_initial_params_of_the_image_config_match_the_twin():
    twin = naive.Model(2, 3, IMAGE)
    network = numbanet.create_from_config(2, 3, IMAGE, device="cpu").network
    expected = twin.initial_params(1337)
    n_network = twin.mlp.n_params
    np.testing.assert_allclose(network.params[:n_network], expected[:n_network], atol=3e-8)
    np.testing.assert_allclose(network.params[n_network:], expected[n_network:], atol=2e-11)


@pytest.mark.parametrize("options", [{}, {"siren_omega": 5.0, "siren_first_scale": 0.5}])
@pytest.mark.parametrize("bias", [False, True])
def test_sine_networks_start_as_siren_does(options, bias):
    options = {**options, "bias": bias}
    network = {**mlp("CutlassMLP", 24, 2, "Sine"), **options}
    config = make_config({"otype": "Identity"}, network)
    network = numbanet.create_from_config(3, 1, config, device="cpu").network
    expected = naive.Model(3, 1, config).initial_params(1337)
    np.testing.assert_allclose(network.params, expected, rtol=3e-7, atol=1e-7)
    for option in ("siren_omega", "siren_first_scale"):
        wrong = make_config({"otype": "Identity"}, {**mlp("CutlassMLP", 24, 2), option: 0.0})
        with pytest.raises(numbanet.ConfigError, match=rf"network\.{option}: 0\.0"):
            numbanet.create_from_config(3, 1, wrong, device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_sizes_match_the_twin(name):
    n_input_dims, n_output_dims, _ = MODELS[name]
    twin = naive.Model(*MODELS[name])
    model = models.create(name)
    network = model.network
    assert (network.n_input_dims, network.n_output_dims) == (n_input_dims, n_output_dims)
    assert network.padded_output_dims == naive.next_multiple(n_output_dims, 16)
    assert network.n_params == network.params.size == network.gradients.size == twin.n_params
    assert network.device == "cpu"
    assert model.trainer.loss is not None
    assert model.trainer.optimizer is not None


@pytest.mark.parametrize("name", ["hash", "identity", "linear", "biased"])
def test_named_parameters_are_views_of_all_params(name):
    network = models.create(name).network
    twin = naive.Model(*MODELS[name])
    views = list(network.named_parameters().values())
    assert [view.shape for view in views[: len(twin.mlp.shapes)]] == twin.mlp.shapes
    assert sum(view.size for view in views) == network.n_params
    for k, view in enumerate(views):
        view[...] = k
    counts = [np.sum(network.params == k) for k in range(len(views))]
    assert counts == [view.size for view in views]


def test_params_can_be_replaced():
    model, twin = models.create_lively("smooth", seed=3)
    x = models.inputs_of(twin, 33)
    before = model.network(x)
    params = np.random.default_rng(1).normal(size=twin.n_params).astype(np.float32)
    given_params = model.network(x, params=params)
    np.testing.assert_array_equal(model.network(x), before)
    model.network.params[:] = params
    np.testing.assert_array_equal(model.network(x), given_params)
    assert_close(given_params, twin.inference(x, params), TOLERANCE["output"])


def test_one_padding_columns_act_as_biases():
    """With only the last column of W0 nonzero, the output is a constant: that column is fed 1."""
    network = models.create("identity").network
    twin = naive.Model(*MODELS["identity"])
    network.params[:] = twin.initial_params(1337)
    first = next(iter(network.named_parameters().values()))
    first[:, :-1] = 0
    y = network(np.random.default_rng(0).random((40, 5)))
    assert np.abs(y[0]).max() > 0
    np.testing.assert_array_equal(y, np.tile(y[0], (40, 1)))


# Inference and gradients


@pytest.mark.parametrize("n", [*SIZES, 3000])
@pytest.mark.parametrize("name", MODELS)
def test_inference_matches_the_twin(name, n):
    model, twin = lively(name)
    x = models.inputs_of(twin, n)
    y = check_inference(model.network, twin, model.network.params, n)
    np.testing.assert_array_equal(model.network.forward(x)[0], y)


@pytest.mark.parametrize("n", [*SIZES, 3000])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_match_the_twin(name, n):
    model, twin = lively(name)
    check_gradients(model.network, twin, model.network.params, n)


def test_all_activations_are_among_the_models():
    networks = [config["network"] for *_, config in MODELS.values()]
    hidden = {network["activation"] for network in networks if network["n_hidden_layers"]}
    assert (
        hidden == {network["output_activation"] for network in networks} == set(naive.ACTIVATIONS)
    )


@settings(max_examples=3)  # each compiles two kernels
@given(**models.any_model({"otype": "OneBlob", "n_bins": 4}))
def test_any_model_matches_its_twin(n_input_dims, n_output_dims, encoding, network, n):
    config = make_config(encoding, network)
    model = numbanet.create_from_config(n_input_dims, n_output_dims, config, device="cpu")
    twin = naive.Model(n_input_dims, n_output_dims, config)
    model.network.params = 0.5 * models.lively_params(twin)
    check_inference(model.network, twin, model.network.params, n)
    check_gradients(model.network, twin, model.network.params, n)


def test_input_gradient_is_the_central_difference():
    model, twin = lively("smooth")
    network, params = model.network, model.network.params
    x = models.inputs_of(twin, 33, params=params)
    for dim in range(network.n_output_dims):
        gradients = network.input_gradient(dim, x)
        assert_close(gradients, twin.input_gradient(dim, x, params), TOLERANCE["gradient"])
        step = 1e-6
        for d, axis in enumerate(np.eye(network.n_input_dims)):
            right = twin.inference(x + step * axis, params)[:, dim]
            left = twin.inference(x - step * axis, params)[:, dim]
            assert_close(gradients[:, d], (right - left) / (2 * step), 1e-3)


@pytest.mark.parametrize("dim", [-1, 2, 100])
def test_input_gradient_of_no_output_is_an_error(dim):
    model, _ = lively("smooth")
    with pytest.raises(ValueError, match=str(dim)):
        model.network.input_gradient(dim, np.zeros((1, 3)))


def test_input_gradient_leaves_the_parameter_gradients():
    model, twin = lively("smooth")
    x = models.inputs_of(twin, 5)
    model.network.gradients[:] = 7
    model.network.input_gradient(0, x)
    assert (model.network.gradients == 7).all()


def test_gradient_modes():
    model, twin = lively("smooth")
    network = model.network
    x = models.inputs_of(twin, 65, params=network.params)
    dl_dy = np.random.default_rng(1).normal(size=(65, 2)).astype(np.float32)
    _, context = network.forward(x)
    network.gradients[:] = 5
    network.backward(context, dl_dy, gradient_mode="overwrite")
    once = network.gradients.copy()
    network.backward(context, dl_dy, gradient_mode="accumulate")
    assert_close(network.gradients, 2 * once, 1e-6)
    twice = network.gradients.copy()
    dl_dx = network.backward(context, dl_dy, gradient_mode="ignore")
    np.testing.assert_array_equal(network.gradients, twice)
    # By two kernels, each of which the compiler rounds as it likes.
    assert_close(dl_dx, network.backward(context, dl_dy), 1e-6)
    assert network.backward(context, dl_dy, input_gradient=False) is None
    with pytest.raises(ValueError, match="sum"):
        network.backward(context, dl_dy, gradient_mode="sum")


def test_empty_batch_has_zero_gradients():
    model, _ = lively("hash")
    network = model.network
    network.gradients[:] = 5
    _, context = network.forward(np.zeros((0, 2)))
    assert network.backward(context, np.zeros((0, 3))).shape == (0, 2)
    assert (network.gradients == 0).all()


def test_rows_do_not_depend_on_their_neighbours():
    """A row's output is the same in any batch and at any place in it."""
    model, twin = lively("hash")
    x = models.inputs_of(twin, 2500)
    whole = model.network(x)
    for rows in (slice(0, 1), slice(3, 20), slice(1000, 2300), slice(None, None, -1)):
        np.testing.assert_array_equal(model.network(x[rows]), whole[rows])


def test_a_result_is_not_overwritten_by_the_next():
    model, twin = lively("hash")
    x = models.inputs_of(twin, 40)
    first = model.network(x)
    kept = first.copy()
    model.network(x[::-1])
    np.testing.assert_array_equal(first, kept)


def test_outputs_go_where_they_are_asked_to():
    model, twin = lively("hash")
    x = models.inputs_of(twin, 40)
    encoding = numbanet.create_encoding(2, HASH, seed=3)
    others = model.network.params * np.float32(0.5)
    for call, n_outputs, more in (
        (model.network.inference, 3, {}),
        (model.network.inference, 3, {"params": others}),
        (model.trainer.inference, 3, {}),
        (encoding.inference, encoding.n_output_dims, {}),
    ):
        guarded = np.full((42, n_outputs), 7, np.float32)
        out = guarded[1:41]
        assert call(x, out=out, **more) is out
        np.testing.assert_array_equal(out, call(x, **more))
        assert (guarded[[0, -1]] == 7).all()
        assert call(x[:0], out=out[:0], **more).shape == (0, n_outputs)


def test_a_place_for_outputs_is_checked():
    model, _ = lively("hash")
    params = model.network.params
    read_only = np.zeros((10, 3), np.float32)
    read_only.flags.writeable = False
    memory = np.full((10, 5), 0.5, np.float32)
    x = memory.reshape(-1)[:20].reshape(10, 2)
    for out, error in (
        (np.zeros((10, 2), np.float32), ValueError),
        (np.zeros((9, 3), np.float32), ValueError),
        (np.zeros(30, np.float32), ValueError),
        (np.zeros((3, 10), np.float32).T, ValueError),
        (memory[:, :3], ValueError),
        (read_only, ValueError),
        (memory.reshape(-1)[10:40].reshape(10, 3), ValueError),
        (params[:30].reshape(10, 3), ValueError),
        (np.zeros((10, 3)), TypeError),
        (np.zeros((10, 3), np.float16), TypeError),
        (np.zeros((10, 3), ">f4"), TypeError),
        ([[0.0] * 3] * 10, TypeError),
    ):
        before = params.copy()
        for call in (model.network.inference, model.trainer.inference):
            with pytest.raises(error, match=r"^out: "):
                call(x, out=out)
        assert (memory == 0.5).all()
        np.testing.assert_array_equal(params, before)
    others = params.copy()
    with pytest.raises(ValueError, match=r"^out: shares memory with params"):
        model.network(x, others, out=others[:30].reshape(10, 3))


def test_two_python_threads_may_evaluate_at_once():
    """Numba's thread pool aborts the process if two threads enter it together."""
    models_and_twins = [lively(name) for name in ("hash", "smooth")]
    batches = [models.inputs_of(twin, 2000) for _, twin in models_and_twins]
    networks = [model.network for model, _ in models_and_twins]
    expected = [network(x) for network, x in zip(networks, batches, strict=True)]

    def evaluate(k):
        return [networks[k % 2].inference(batches[k % 2]) for _ in range(20)]

    with ThreadPoolExecutor(4) as pool:
        for k, results in enumerate(pool.map(evaluate, range(4))):
            for result in results:
                np.testing.assert_array_equal(result, expected[k % 2])


# Parts by themselves


PRODUCT = {
    "otype": "Composite",
    "nested": [{**HASH, "n_levels": 1, "n_dims_to_encode": 1}, {"otype": "OneBlob", "n_bins": 2}],
    "reduction": "Product",
}


@pytest.mark.parametrize("alignment", [0, 16])
@pytest.mark.parametrize(
    "config",
    [HASH, {"otype": "OneBlob", "n_bins": 4}, PRODUCT],
    ids=["hash", "blob", "product"],
)
def test_encoding_by_itself(config, alignment):
    encoding = numbanet.create_encoding(2, config, seed=3, alignment=alignment)
    plain = naive.encoding(config, 2)
    twin = plain.padded(naive.next_multiple(plain.n_outputs, alignment or 1))
    expected_params = twin.initial_params(naive.PCG32(3))
    np.testing.assert_allclose(encoding.params, expected_params, rtol=3e-7, atol=3e-11)
    assert encoding.n_output_dims == twin.n_outputs
    params = np.random.default_rng(0).normal(size=twin.n_params).astype(np.float32)
    encoding.params[:] = params

    rng = np.random.default_rng(1)
    x = rng.random((33, 2), np.float32)
    x = x[(twin.distance_to_border(x.astype(np.float64)) > 1e-3).all(axis=1)]
    dl_dy = rng.normal(size=(len(x), twin.n_outputs)).astype(np.float32)
    dl_ddx = rng.normal(size=x.shape).astype(np.float32)
    exact = [array.astype(np.float64) for array in (x, params, dl_dy)]
    y, context = encoding.forward(x)
    assert_close(y, twin.forward(*exact[:2]), TOLERANCE["output"])
    np.testing.assert_array_equal(encoding(x), y)

    dl_dx = encoding.backward(context, dl_dy)
    assert_close(dl_dx, twin.backward_input(*exact), TOLERANCE["gradient"])
    assert_close(encoding.gradients, twin.backward_params(*exact), TOLERANCE["gradient"])

    dl_ddy, second = encoding.double_backward(context, dl_dy, dl_ddx)
    expected = twin.double_backward(*exact, dl_ddx.astype(np.float64))
    assert_close(dl_ddy, expected[0], TOLERANCE["gradient"])
    assert_close(second, expected[1], TOLERANCE["gradient"])
    assert_close(encoding.gradients, expected[2], TOLERANCE["gradient"])


def test_parts_without_a_model():
    loss = numbanet.create_loss({"otype": "relativel2"})
    optimizer = numbanet.create_optimizer({"otype": "adam", "learning_rate": 0.5})
    assert loss.otype == "RelativeL2"
    assert optimizer.learning_rate == 0.5


# Configs


def test_missing_sections_have_the_defaults():
    model = numbanet.create_from_config(2, 1, {}, device="cpu")
    assert type(model.network.encoding).__name__ == "OneBlob"
    assert model.trainer.loss.otype == "RelativeL2"
    assert model.trainer.optimizer.otype == "Adam"
    twin = naive.Model(2, 1, {"encoding": {"otype": "OneBlob"}, "network": {}})
    assert model.network.n_params == twin.n_params


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        ("network", {"otype": "FullyFusedMLP", "n_neurons": 40}, r"network\.n_neurons.*40"),
        ("network", {"otype": "FullyFusedMLP", "n_hidden_layers": 0}, r"network\.n_hidden_layers"),
        ("network", {"otype": "CutlassMLP", "n_neurons": -1}, r"network\.n_neurons.*-1"),
        ("network", {"otype": "CutlassMLP", "activation": "Relux"}, r"network\.activation.*Relux"),
        ("network", {"otype": "Perceptron"}, r"network\.otype.*Perceptron.*CutlassMLP"),
        ("optimizer", {"otype": "Adam", "learning_rate": "fast"}, r"optimizer\.learning_rate"),
        ("optimizer", {"otype": "Adam", "learning_rate": float("nan")}, r"optimizer\.learning_r"),
        ("encoding", {"otype": "HashGrid", "n_features_per_level": 3}, r"encoding\.n_features_per"),
        (
            "encoding",
            {"otype": "HashGrid", "n_levels": 2, "n_features": 4},
            r"encoding\..*n_featur",
        ),
        ("encoding", {"otype": "HashGrid", "hash": "MD5"}, r"encoding\.hash.*MD5.*CoherentPrime"),
        ("loss", {"otype": "L3"}, r"loss\.otype.*L3.*L2"),
        ("loss", "L2", r"loss"),
    ],
)
def test_a_wrong_config_names_the_option(section, options, message):
    config = {**models.config_of("hash"), section: options}
    with pytest.raises(numbanet.ConfigError, match=message):
        numbanet.create_from_config(2, 3, config, device="cpu")


@pytest.mark.parametrize("dims", [(0, 1), (1, 0), (-1, 1), (2.5, 1), ("2", 1), (True, 1)])
def test_wrong_dims_are_an_error(dims):
    with pytest.raises((ValueError, TypeError), match=r"dims"):
        numbanet.create_from_config(*dims, models.config_of("hash"), device="cpu")


def test_numpy_dims_are_welcome():
    model = numbanet.create_from_config(np.int64(2), np.int32(3), models.config_of("hash"))
    assert model.network.n_params == naive.Model(*MODELS["hash"]).n_params


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"device": "tpu"}, ValueError),
        ({"device": 3}, ValueError),
        ({"precision": "float8"}, ValueError),
        ({"seed_convention": "random"}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 1.5}, ValueError),
    ],
)
def test_wrong_options_are_an_error(options, error):
    with pytest.raises(error, match=str(next(iter(options.values())))):
        models.create("hash", **options)


def test_the_config_is_not_changed():
    config = models.config_of("hash")
    before = models.config_of("hash")
    numbanet.create_from_config(2, 3, config, device="cpu")
    assert config == before
