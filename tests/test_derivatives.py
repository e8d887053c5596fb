"""Derivatives of outputs by inputs and gradients through them, against float64 twins."""

import json

import laws
import models
import naive
import numba
import numpy as np
import pytest
from laws import EncodingData, assert_close
from models import make_config, mlp

import numbanet
from numbanet.activations import activation
from numbanet.cpu import derivative_engine

TOLERANCE = {"values": 1e-5, "jacobian": 1e-4, "second": 5e-4, "gradient": 5e-4}
SMOOTH_ACTIVATIONS = sorted(set(naive.ACTIVATIONS) - {"ReLU", "LeakyReLU"})
COMPOSITE = {
    "otype": "Composite",
    "nested": [
        {"otype": "OneBlob", "n_bins": 4, "n_dims_to_encode": 1},
        {**models.SMOOTH, "n_dims_to_encode": 2},
        {"otype": "SphericalHarmonics", "degree": 3, "n_dims_to_encode": 3},
    ],
}
FREQUENCY = {"otype": "Frequency", "n_frequencies": 2}
# name -> n_input_dims, n_output_dims, encoding, network, wanted: each smooth activation occurs.
CASES = {
    "tanh": (
        2, 3, {"otype": "Identity"}, mlp("CutlassMLP", 16, 2, "Tanh", "Sine", bias=True), "hessian",
    ),
    "siren": (2, 1, FREQUENCY, mlp("FullyFusedMLP", 32, 2, "Sine"), "laplacian"),
    "grid": (3, 2, models.SMOOTH, mlp("CutlassMLP", 16, 1, "SiLU", "Sigmoid"), "diagonal"),
    "composite": (6, 1, COMPOSITE, mlp("CutlassMLP", 7, 1, "Softplus", "Exponential"), "laplacian"),
    "one_blob": (
        1, 17, {"otype": "OneBlob", "n_bins": 4}, mlp("CutlassMLP", 5, 1, "Sigmoid", "Squareplus"),
        "hessian",
    ),
    "linear": (3, 2, FREQUENCY, mlp("CutlassMLP", 4, 0, "ReLU", "Tanh"), "laplacian"),
}  # fmt: skip


def create(name):
    """The network of a case with lively parameters, its twin, and what is wanted."""
    n_input_dims, n_output_dims, encoding, network, wanted = CASES[name]
    config = make_config(encoding, network)
    twin = naive.Model(n_input_dims, n_output_dims, config)
    model = numbanet.create_from_config(n_input_dims, n_output_dims, config, device="cpu")
    model.network.params = 0.5 * models.lively_params(twin)
    return model, twin, wanted


def chosen(hessian, wanted):
    return {
        "laplacian": lambda: np.trace(hessian, axis1=-2, axis2=-1),
        "diagonal": lambda: np.diagonal(hessian, axis1=-2, axis2=-1),
        "hessian": lambda: hessian,
    }[wanted]()


def gradient_along(twin, x, params, weights, wanted, direction):
    """The slope, in a direction of the parameters, of the sum of all derivatives, weighted."""

    def loss(step):
        values, jacobian, hessian = twin.derivatives(x, params + step * direction)
        arrays = values, jacobian, chosen(hessian, wanted)
        return sum((weight * each).sum() for weight, each in zip(weights, arrays, strict=True))

    h = 1e-4
    return (8 * (loss(h) - loss(-h)) - (loss(2 * h) - loss(-2 * h))) / (12 * h)


def batch(twin, params, n, wanted):
    """Inputs, and gradients of values, Jacobian and second derivatives."""
    rng = np.random.default_rng(n)
    x = models.inputs_of(twin, n, n)
    arrays = twin.derivatives(x, params)
    arrays = *arrays[:2], chosen(arrays[2], wanted)
    return x, [rng.normal(size=each.shape).astype(np.float32) for each in arrays]


def check(network, twin, wanted, n):
    params = network.params.astype(np.float64)
    x, weights = batch(twin, params, n, wanted)
    found = network.derivatives(x, wanted=wanted)
    values, jacobian, hessian = twin.derivatives(x, params)
    assert_close(found.values, values, TOLERANCE["values"])
    assert_close(found.jacobian, jacobian, TOLERANCE["jacobian"])
    assert_close(getattr(found, wanted), chosen(hessian, wanted), TOLERANCE["second"])
    found.backward(*weights[:2], **{f"dl_d{wanted}": weights[2]})
    gradients = network.gradients.astype(np.float64)
    if n == 0:
        assert not gradients.any()
        return
    rng, n_network = np.random.default_rng(0), twin.mlp.n_params
    for part in (slice(None, n_network), slice(n_network, None)):
        for _ in range(3 if params[part].size else 0):
            direction = np.zeros_like(params)
            direction[part] = rng.normal(size=params[part].size)
            expected = gradient_along(twin, x, params, weights, wanted, direction)
            size = np.linalg.norm(gradients[part]) * np.linalg.norm(direction)
            assert abs(gradients @ direction - expected) < TOLERANCE["gradient"] * size


@pytest.mark.parametrize("name", CASES)
def test_derivatives_and_gradients_match_the_twin(name):
    model, twin, wanted = create(name)
    for n in (0, 1, 33, 257):
        check(model.network, twin, wanted, n)


def test_each_smooth_activation_is_in_a_case():
    networks = [network for _, _, _, network, _ in CASES.values()]
    names = {each[key] for each in networks for key in ("activation", "output_activation")}
    assert names >= set(SMOOTH_ACTIVATIONS)


@pytest.mark.parametrize("name", SMOOTH_ACTIVATIONS)
def test_third_derivatives(name):
    found, second = activation(name), naive.SECOND_DERIVATIVES[name]
    x, h = np.linspace(-3, 3, 61).astype(np.float32), 1e-4
    x = np.concatenate([x, np.float32([-80, -20, 20, 80])[: 2 if name == "Exponential" else 4]])
    d = x.astype(np.float64)
    expected = (
        (8 * (second(d + h) - second(d - h)) - second(d + 2 * h) + second(d - 2 * h)) / 12 / h
    )
    kept = x if found.from_input else [np.float32(found.forward(each)) for each in x]
    third = np.array([found.third(np.float32(each)) for each in kept])
    np.testing.assert_allclose(third, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())


FIRST_EXAMPLES = {
    otype: (otype, config, sizes) for otype, config, sizes in reversed(laws.examples("encoding"))
}
ENCODINGS = [
    *FIRST_EXAMPLES.values(),
    *(each for each in laws.examples("encoding") if each[0] == "Composite"),
    laws.examples("encoding")[[e[1].get("type") for e in laws.examples("encoding")].index("Dense")],
]


@pytest.mark.parametrize(("otype", "config", "sizes"), ENCODINGS, ids=json.dumps)
def test_partial_derivatives_of_features_match_the_twin(otype, config, sizes):
    encoding = laws.create("encoding", otype, config, sizes)
    twin = naive.encoding({"otype": otype, **config}, **sizes)
    width = naive.next_multiple(twin.n_outputs + 1, 16)
    data = EncodingData(encoding.padded(width), twin.padded(width), 9)
    encoding, twin, n_dims = data.encoding, data.twin, encoding.n_dims
    x, params, dl_dy, _ = data.doubles()

    def expected(a, b, params):
        if a < 0:
            return twin.forward(x, params)
        if b < 0:
            return twin.jacobian(x, params)[:, :, a]
        return twin.hessian(x, params)[:, :, a, b]

    delta = 1e-3 * np.random.default_rng(0).normal(size=params.shape)
    pairs = [(-1, -1), *((d, -1) for d in range(n_dims))]
    if encoding.n_derivatives > 1:
        pairs += [(d, e) for d in range(n_dims) for e in range(n_dims) if e <= min(d, 1)]
    for a, b in pairs[: None if encoding.n_derivatives else 1]:

        def add(i, y, a=a, b=b):
            y[...] = 2
            encoding.add_partial(data.x[i], data.params, a, b, y)

        order = "second" if b >= 0 else "first"
        found = data.per_sample(add, width)[0].astype(np.float64) - 2
        data.assert_close(found, expected(a, b, params), order)
        if not params.size:
            assert encoding.partial_backward_params is None
            continue
        gradient, rows = np.zeros_like(data.params), np.zeros_like(data.params)
        for i in range(len(x)):
            encoding.partial_backward_params(data.x[i], data.params, a, b, data.dl_dy[i], gradient)
        for partition, dl_dys in data.partitions():
            encoding.partial_backward_params_rows(
                partition, data.x, data.params, (a, b), dl_dys, rows
            )
        assert_close(rows, gradient, 1e-5)
        change = expected(a, b, params + delta) - expected(a, b, params - delta)
        size = np.linalg.norm(gradient) * np.linalg.norm(delta)
        assert abs(2 * gradient @ delta - (dl_dy * change).sum()) <= 1e-3 * size


def test_slabs_and_threads(monkeypatch):
    """Slabs add up; the number of threads changes no bit."""
    model, twin, wanted = create("grid")
    network = model.network
    x, weights = batch(twin, network.params, 300, wanted)

    def both():
        found = network.derivatives(x, wanted=wanted)
        found.backward(*weights[:2], dl_ddiagonal=weights[2])
        return found.diagonal, network.gradients.copy()

    whole, before = both(), numba.get_num_threads()
    try:
        for n_threads in (1, before):
            numba.set_num_threads(n_threads)
            for found, expected in zip(both(), whole, strict=True):
                np.testing.assert_array_equal(found, expected)
    finally:
        numba.set_num_threads(before)
    monkeypatch.setattr(derivative_engine, "SLAB_FLOATS", 1)
    found = both()
    np.testing.assert_array_equal(found[0], whole[0])
    assert_close(found[1], whole[1], 1e-5)


def test_gradients_of_some_and_modes():
    model, twin, _ = create("siren")
    network = model.network
    x, (dl_dvalues, dl_djacobian, dl_dlaplacian) = batch(twin, network.params, 33, "laplacian")
    found = network.derivatives(x)
    found.backward(dl_dvalues, dl_djacobian, dl_dlaplacian)
    whole = network.gradients.copy()
    found.backward(dl_dvalues)
    found.backward(dl_djacobian=dl_djacobian, gradient_mode="accumulate")
    found.backward(dl_dlaplacian=dl_dlaplacian, gradient_mode="accumulate")
    assert_close(network.gradients, whole, 1e-5)
    found.backward(dl_dlaplacian=dl_dlaplacian, gradient_mode="ignore")
    assert_close(network.gradients, whole, 1e-5)
    _, context = network.forward(x)
    network.backward(context, dl_dvalues)
    expected = network.gradients.copy()
    found.backward(dl_dvalues)
    assert_close(network.gradients, expected, 1e-5)
    other = network.derivatives(x, params=0.5 * network.params)
    assert_close(other.values, network(x, 0.5 * network.params), 1e-5)


def test_first_order_alone():
    """Where second derivatives are 0, as between the corners of ReLU, order 1 is left."""
    model, twin = models.create_lively("hash")
    network = model.network
    x = models.inputs_of(twin, 33, 0, network.params)
    found = network.derivatives(x, order=1)
    values, jacobian, _ = twin.derivatives(x, network.params)
    assert_close(found.values, values, 1e-5)
    assert_close(found.jacobian, jacobian, 1e-4)
    dl_djacobian = np.random.default_rng(0).normal(size=jacobian.shape).astype(np.float32)
    dl_djacobian[:, 1:] = 0
    found.backward(dl_djacobian=dl_djacobian)
    gradients = network.gradients.copy()
    _, context = network.forward(x)
    one_hot = np.tile(np.float32([1, 0, 0]), (33, 1))
    network.double_backward(context, one_hot, dl_djacobian[:, 0])
    assert_close(gradients, network.gradients, 1e-5)


def test_what_is_refused():
    network = create("siren")[0].network
    x = np.zeros((3, 2), np.float32)
    for options, message in (
        ({"order": 3}, r"order: 3 is not allowed; use 1 or 2"),
        ({"order": True}, r"order: True is not allowed"),
        ({"wanted": "curl"}, r"wanted: 'curl' is not known; use laplacian, diagonal, hessian"),
        ({"order": 1, "wanted": "hessian"}, r"leave it out for order 1"),
        ({"params": np.zeros(3)}, r"params: expected shape"),
    ):
        with pytest.raises(ValueError, match=message):
            network.derivatives(x, **options)
    with pytest.raises(ValueError, match=r"inputs: expected shape \[batch, 2\], got \[3, 3\]"):
        network.derivatives(np.zeros((3, 3)))
    found = network.derivatives(x)
    before = network.gradients.copy()
    for given, message in (
        ({}, r"give at least one"),
        ({"dl_djacobian": np.zeros((3, 2))}, r"dl_djacobian: expected shape \[3, 1, 2\], got"),
        ({"dl_dvalues": np.zeros((2, 1))}, r"dl_dvalues: expected shape \[3, 1\], got \[2, 1\]"),
        ({"dl_dhessian": np.zeros((3, 1, 2, 2))}, r"computed with wanted='laplacian'; use wanted"),
        ({"dl_dvalues": np.ones((3, 1)), "gradient_mode": "add"}, r"gradient_mode: 'add'"),
    ):
        with pytest.raises(ValueError, match=message):
            found.backward(**given)
    with pytest.raises(TypeError, match="dl_dvalues: expected real numbers"):
        found.backward(np.full((3, 1), "a"))
    np.testing.assert_array_equal(network.gradients, before)
    with pytest.raises(AttributeError, match=r"hessian: it was not computed; .*wanted='hessian'"):
        _ = found.hessian
    assert repr(found) == "Derivatives(3 samples, 1 outputs by 2 inputs, laplacian)"


@pytest.mark.parametrize(
    ("encoding", "activation", "message"),
    [
        ({"otype": "Identity"}, "ReLU", "activation ReLU has no `third`.* use Tanh, Sine"),
        (models.HASH, "Tanh", "encoding Grid: .* no second derivatives; .*interpolation Smooth"),
        ({"otype": "TriangleWave"}, "Tanh", "encoding TriangleWave: .* no second derivatives"),
    ],
)
def test_what_is_not_smooth(encoding, activation, message):
    config = make_config(encoding, mlp("CutlassMLP", 16, 1, activation))
    network = numbanet.create_from_config(2, 1, config, device="cpu").network
    with pytest.raises(TypeError, match=message):
        network.derivatives(np.zeros((1, 2)))


def test_too_many_derivatives():
    config = make_config({"otype": "Identity"}, mlp("CutlassMLP", 16, 1, "Tanh"))
    network = numbanet.create_from_config(17, 1, config, device="cpu").network
    with pytest.raises(ValueError, match=r"171 derivatives .* 64 are possible"):
        network.derivatives(np.zeros((1, 17)), wanted="hessian")


def test_inputs_that_are_not_finite():
    """Their derivatives are NaN, those of others are not; the optimizer leaves such a step out."""
    model, _, _ = create("siren")
    network, trainer = model.network, model.trainer
    x = np.random.default_rng(0).random((5, 2), np.float32)
    expected = network.derivatives(x)
    x[1, 0], x[3, 1] = np.nan, np.inf
    found = network.derivatives(x)
    for name in ("values", "jacobian", "laplacian"):
        array = getattr(found, name)
        assert np.isnan(array[[1, 3]]).all()
        np.testing.assert_array_equal(array[[0, 2, 4]], getattr(expected, name)[[0, 2, 4]])
    before = network.params.copy()
    found.backward(dl_dlaplacian=found.laplacian)
    with pytest.warns(RuntimeWarning, match="skipped"):
        trainer.optimizer_step()
    np.testing.assert_array_equal(network.params, before)
    assert (trainer.n_steps, trainer.n_skipped_steps) == (0, 1)


def test_a_trained_model_is_asked_directly():
    """At the parameters that are trained, also where others are for inference."""
    model, twin, _ = create("siren")
    x = batch(twin, model.network.params, 33, "laplacian")[0]
    found, expected = model.derivatives(x, wanted="laplacian"), model.network.derivatives(x)
    np.testing.assert_array_equal(found.laplacian, expected.laplacian)


def test_a_step_with_gradients_of_ones_own():
    """It is the step that `training_step` makes with the same gradient."""
    (first, twin, _), (second, _, _) = create("siren"), create("siren")
    x, (dl_dy, *_) = batch(twin, first.network.params, 33, "laplacian")
    for _ in range(3):
        first.network.derivatives(x).backward(dl_dy)
        assert float(first.trainer.optimizer_step()) == 0
        second.trainer.training_step(x, None, external_dl_dy=dl_dy)
    assert first.trainer.n_steps == second.trainer.n_steps == 3
    assert_close(first.network.params, second.network.params, 1e-5)
