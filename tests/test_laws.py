"""The laws of laws.py, applied to everything in the registry."""

import dataclasses
import json
import math

import laws
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import SIZES, TOLERANCE, EncodingData, assert_close

import numbanet
from numbanet import registry
from numbanet.activations import activation
from numbanet.cpu.engine import optimize
from numbanet.optimizers.base import ParamLayout
from numbanet.registry import ConfigError
from numbanet.unknown_options import UnknownOptionWarning


def label(value):
    return json.dumps(value) if isinstance(value, dict) else str(value)


def of_kind(*kinds):
    """Parametrise over (kind, otype, config, sizes) of all examples."""
    cases = [(kind, *example) for kind in kinds for example in laws.examples(kind)]
    return pytest.mark.parametrize(("kind", "otype", "config", "sizes"), cases, ids=label)


def of_first(kind, and_all_of=()):
    """The same over one example of each component, for what is the work of its base class.

    Args:
        and_all_of: names of the components of which all examples count.
    """
    cases, seen = [], set()
    for example in laws.examples(kind):
        component = type(laws.create(kind, *example))
        if component not in seen or example[0] in and_all_of:
            cases.append((kind, *example))
        seen.add(component)
    return pytest.mark.parametrize(("kind", "otype", "config", "sizes"), cases, ids=label)


@pytest.fixture(scope="module")
def encodings():
    """Components and twins by example, so that each is compiled once."""
    return {}


def encoding_data(encodings, otype, config, sizes, n, seed=0):
    key = label([otype, config, sizes])
    if key not in encodings:
        encodings[key] = (
            laws.create("encoding", otype, config, sizes),
            naive.encoding({"otype": otype, **config}, **sizes),
        )
    return EncodingData(*encodings[key], n, seed)


# Every kind: configs


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_component_has_an_example(kind):
    assert registry.registered(kind)
    missing = laws.missing(kind)
    assert not missing, f"add {', '.join(missing)} to EXAMPLES in tests/laws.py (kind {kind!r})"


@of_kind(*registry.KINDS)
def test_config_round_trip(kind, otype, config, sizes):
    component = laws.create(kind, otype, config, sizes)
    written = registry.to_config(component)
    again = registry.create(kind, json.loads(json.dumps(written)), default="none", **sizes)
    assert again == component
    assert hash(again) == hash(component)
    for option, value in config.items():
        if option != "n_features":  # another way to say n_levels
            assert laws.holds(written[option], value)


@of_kind(*registry.KINDS)
def test_components_are_frozen(kind, otype, config, sizes):
    component = laws.create(kind, otype, config, sizes)
    field = dataclasses.fields(component)[0].name if dataclasses.fields(component) else "anything"
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(component, field, 1)


@of_kind(*registry.KINDS)
def test_names_are_case_insensitive(kind, otype, config, sizes):
    component = laws.create(kind, otype, config, sizes)
    for change in (str.lower, str.upper):
        changed = {k: change(v) if isinstance(v, str) else v for k, v in config.items()}
        assert laws.create(kind, change(otype), changed, sizes) == component


def to_numpy(value):
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_numpy(item) for item in value]
    return {bool: np.bool_, int: np.int64, float: np.float64, str: str}[type(value)](value)


@of_kind(*registry.KINDS)
def test_numpy_scalars_are_welcome(kind, otype, config, sizes):
    changed = to_numpy(config)
    component = laws.create(kind, otype, config, sizes)
    again = laws.create(kind, otype, changed, sizes)
    assert again == component
    json.dumps(registry.to_config(again))


@of_kind(*registry.KINDS)
def test_an_unknown_option_warns(kind, otype, config, sizes):
    with pytest.warns(UnknownOptionWarning, match=rf"{kind}\.colour") as warned:
        component = laws.create(kind, otype, {**config, "colour": "red"}, sizes)
    assert len(warned) == 1
    assert component == laws.create(kind, otype, config, sizes)


@pytest.mark.parametrize("kind", registry.KINDS)
@pytest.mark.parametrize("otype", ["Nonsense", "", None, 3, ["Adam"]])
def test_an_unknown_otype_lists_what_exists(kind, otype):
    known = next(iter(registry.registered(kind)))
    with pytest.raises(ConfigError, match=rf"{kind}\.otype.*{known}"):
        registry.create(kind, {"otype": otype}, default="none")


@pytest.mark.parametrize("kind", registry.KINDS)
@pytest.mark.parametrize("config", [None, 3, "Adam", ["Adam"]])
def test_a_config_that_is_no_object_is_an_error(kind, config):
    with pytest.raises(ConfigError, match=kind):
        registry.create(kind, config, default="none")


def wrong_values(component):
    """(option, value) pairs that no component may accept, by the type of the option."""
    wrong = {
        "int": (-1, 2.5, math.nan, math.inf, "many", [1], True),
        "float": (math.nan, math.inf, -math.inf, "much", [1.0], True),
        "bool": ("yes", 2, [True]),
        "str": (5, "nonsense", ["None"], None),
    }
    for name, field in registry.options(component).items():
        type_name = getattr(field.type, "__name__", str(field.type)).split(" | ")[0]
        for value in wrong.get(type_name, ()):
            none_is_one = name.endswith(("activation", "compression"))
            if value is not None or not none_is_one:
                yield name, value


@pytest.mark.parametrize("option", ["activation", "output_activation"])
@pytest.mark.parametrize("otype", ["FullyFusedMLP", "CutlassMLP"])
def test_no_activation_may_be_named_none(otype, option):
    named, written = (
        laws.create("network", otype, {option: value}, {"n_input_dims": 16, "n_output_dims": 3})
        for value in ("None", None)
    )
    assert written == named


@pytest.mark.parametrize("kind", registry.KINDS)
def test_a_wrong_value_names_the_option(kind):
    """The message starts with the path of the option, and nothing else is raised."""
    wrong = []
    for name, (_, config, sizes) in {e[0]: e for e in laws.examples(kind)}.items():
        component = type(laws.create(kind, name, config, sizes))
        for option, value in wrong_values(component):
            outcome = outcome_of(laws.create, kind, name, {option: value}, sizes)
            if not outcome.startswith(f"ConfigError: {kind}.{option}"):
                wrong.append(f"{name}.{option} = {value!r}: {outcome}")
    assert not wrong, "\n".join(wrong)


def outcome_of(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


# Encodings


@of_kind("encoding")
@pytest.mark.parametrize("n", SIZES)
def test_encoding_matches_its_twin(encodings, kind, otype, config, sizes, n):
    data = encoding_data(encodings, otype, config, sizes, n)
    x, params, dl_dy, _ = data.doubles()
    assert data.encoding.n_outputs == data.twin.n_outputs
    assert data.encoding.n_params == data.twin.n_params
    y = data.forward()
    data.assert_close(y, data.twin.forward(x, params), "value")
    np.testing.assert_array_equal(y, data.forward())
    dl_dx = data.backward_input()
    data.assert_close(dl_dx, data.twin.backward_input(x, params, dl_dy), "first")
    np.testing.assert_array_equal(dl_dx, data.backward_input())


@of_kind("encoding")
@pytest.mark.parametrize("n", SIZES)
def test_parameter_gradient_matches_its_twin(encodings, kind, otype, config, sizes, n):
    data = encoding_data(encodings, otype, config, sizes, n)
    if data.encoding.n_params == 0:
        assert data.encoding.backward_params is None
        assert data.encoding.backward_params_rows is None
        return
    x, params, dl_dy, _ = data.doubles()
    expected = data.twin.backward_params(x, params, dl_dy)
    partitions = data.backward_params()
    data.assert_close(sum(partitions), expected, "first")
    touched = np.sum([gradient != 0 for gradient in partitions], axis=0)
    assert touched.max(initial=0) <= 1, "two partitions share a parameter"
    for first, second in zip(partitions, data.backward_params(), strict=True):
        np.testing.assert_array_equal(first, second)
    data.assert_close(data.backward_params_per_sample(), expected, "first")


@of_kind("encoding")
@pytest.mark.parametrize("n", [0, 33])
def test_double_backward_matches_its_twin(encodings, kind, otype, config, sizes, n):
    data = encoding_data(encodings, otype, config, sizes, n)
    x, params, dl_dy, dl_ddx = data.doubles()
    expected = data.twin.double_backward(x, params, dl_dy, dl_ddx)
    dl_ddy, dl_dx = data.double_backward_input()
    data.assert_close(dl_ddy, expected[0], "first")
    data.assert_close(dl_dx, expected[1], "second")
    if data.encoding.n_params == 0:
        assert data.encoding.double_backward_params is None
        return
    data.assert_close(data.double_backward_params(), expected[2], "first")


@of_first("encoding", and_all_of=["Composite", "Grid"])
def test_batch_forms_do_what_the_functions_of_a_sample_do(encodings, kind, otype, config, sizes):
    data = encoding_data(encodings, otype, config, sizes, 33)
    data.assert_close(data.forward(), data.forward_per_sample(), "value")
    if data.encoding.n_params:
        expected = data.backward_params_per_sample()
        data.assert_close(sum(data.backward_params()), expected, "first")
        expected = data.double_backward_params_per_sample()
        data.assert_close(data.double_backward_params(), expected, "first")


@of_first("encoding", and_all_of=["Composite"])
def test_padding_matches_its_twin(encodings, kind, otype, config, sizes):
    plain = encoding_data(encodings, otype, config, sizes, 33)
    width = naive.next_multiple(plain.twin.n_outputs + 1, 16)
    data = EncodingData(plain.encoding.padded(width), plain.twin.padded(width), 33)
    x, params, dl_dy, dl_ddx = data.doubles()
    assert data.encoding.n_outputs == data.twin.n_outputs == width
    assert data.encoding.n_params == plain.encoding.n_params
    data.assert_close(data.forward(), data.twin.forward(x, params), "value")
    data.assert_close(data.backward_input(), data.twin.backward_input(x, params, dl_dy), "first")
    expected = data.twin.double_backward(x, params, dl_dy, dl_ddx)
    dl_ddy, dl_dx = data.double_backward_input()
    data.assert_close(dl_ddy, expected[0], "first")
    data.assert_close(dl_dx, expected[1], "second")
    if data.encoding.n_params:
        expected_params = data.twin.backward_params(x, params, dl_dy)
        data.assert_close(sum(data.backward_params()), expected_params, "first")
        data.assert_close(data.double_backward_params(), expected[2], "first")


@of_kind("encoding")
def test_parts_are_the_whole(encodings, kind, otype, config, sizes):
    """Computed part by part, the features are the same."""
    data = encoding_data(encodings, otype, config, sizes, 5)
    whole, y = data.forward(), np.full((5, data.encoding.n_outputs), laws.GUARD, np.float32)
    for first, stop, value in data.encoding.constants:
        y[:, first:stop] = value
    for part in data.encoding.parts:
        encoding, column = part.encoding, part.first_column
        x = np.ascontiguousarray(data.x[:, part.first_dim : part.first_dim + encoding.n_dims])
        params = data.params[part.first_param : part.first_param + encoding.n_params]
        encoding.forward_rows(x, 0, 5, params, y, 0, column)
    np.testing.assert_allclose(y, whole, rtol=1e-6, atol=1e-6)


@of_kind("encoding")
def test_parameter_gradients_add_to_what_is_there(encodings, kind, otype, config, sizes):
    data = encoding_data(encodings, otype, config, sizes, 33)
    if data.encoding.n_params == 0:
        return
    once = sum(data.backward_params())
    twice = np.ones_like(once)
    for _ in range(2):
        for partition, dl_dy in data.partitions():
            data.encoding.backward_params_rows(partition, data.x, data.params, dl_dy, twice)
    data.assert_close(twice, 1 + 2 * once, "first")


@of_kind("encoding")
@settings(max_examples=10)
@given(first=st.integers(0, 33), n=st.integers(0, 33), row=st.integers(0, 3))
def test_rows_are_independent(encodings, kind, otype, config, sizes, first, n, row):
    """A part of the rows, written elsewhere, gets the same values as in the whole."""
    data = encoding_data(encodings, otype, config, sizes, 66)
    whole = data.forward()
    ys = np.full((n + 3, data.encoding.n_outputs), laws.GUARD, np.float32)
    data.encoding.forward_rows(data.x, first, first + n, data.params, ys, row, 0)
    np.testing.assert_array_equal(ys[row : row + n], whole[first : first + n])
    assert (ys[:row] == laws.GUARD).all()
    assert (ys[row + n :] == laws.GUARD).all()


@of_kind("encoding")
def test_equal_encodings_make_equal_code(kind, otype, config, sizes):
    """Equal components are one key of every cache of kernels, and unequal ones are not."""
    first, second = (laws.create(kind, otype, config, sizes) for _ in range(2))
    assert len({first, second}) == 1
    padded = [encoding.padded(encoding.n_outputs + 8) for encoding in (first, second)]
    assert len({first, *padded}) == 2


# Activations


@pytest.mark.parametrize("name", naive.ACTIVATIONS)
def test_activation_matches_its_twin(name):
    found = activation(name)
    value, derivative = naive.activation(name)
    x = np.concatenate([np.linspace(-9, 9, 181), [-88, -30, -1e-6, 1e-6, 30]]).astype(np.float32)
    if name == "Exponential":
        x = x[x < 20]
    x = x[x != 0]  # the kinks are tested on their own
    y = np.array([found.forward(np.float32(v)) for v in x])
    expected = value(x.astype(np.float64))
    np.testing.assert_allclose(y, expected, rtol=2e-6, atol=1e-6)
    kept = x if found.from_input else y.astype(np.float32)
    dl_dx = np.array([found.backward(np.float32(-2), np.float32(v)) for v in kept])
    np.testing.assert_allclose(dl_dx, -2 * derivative(x.astype(np.float64)), rtol=2e-5, atol=2e-6)
    second = np.array([found.second(np.float32(v)) for v in kept])
    expected = naive.SECOND_DERIVATIVES[name](x.astype(np.float64))
    np.testing.assert_allclose(second, expected, rtol=1e-4, atol=1e-5)


def test_activations_are_all_there():
    assert list(registry.registered("activation")) == list(naive.ACTIVATIONS)
    assert activation("relu") is activation("RELU") is activation("ReLU")


@pytest.mark.parametrize("name", ["ReLU", "LeakyReLU"])
def test_gradient_at_the_kink_is_the_one_from_the_left(name):
    found = activation(name)
    expected = -2 * naive.activation(name)[1](np.zeros(1))[0]
    assert found.backward(np.float32(-2), np.float32(0)) == np.float32(expected)


@pytest.mark.parametrize("name", naive.ACTIVATIONS)
@pytest.mark.parametrize("x", [-1e4, 1e4])
def test_activations_survive_large_inputs(name, x):
    """Far from 0 all of them but Exponential are finite, and so are their gradients."""
    if name == "Exponential":
        x = -abs(x)
    if name == "Sine":
        x /= 100  # float32 has no meaningful sine far out
    found = activation(name)
    y = found.forward(np.float32(x))
    np.testing.assert_allclose(y, naive.activation(name)[0](np.float64(x)), rtol=1e-4, atol=1e-5)
    kept = x if found.from_input else y
    dl_dx = found.backward(np.float32(1), np.float32(kept))
    expected = naive.activation(name)[1](np.array([np.float64(np.float32(x))]))[0]
    np.testing.assert_allclose(dl_dx, expected, rtol=1e-3, atol=1e-4)
    expected = naive.SECOND_DERIVATIVES[name](np.array([np.float64(np.float32(x))]))[0]
    np.testing.assert_allclose(found.second(np.float32(kept)), expected, rtol=1e-3, atol=1e-4)


# Networks


@of_kind("network")
def test_network_layout_is_that_of_its_twin(kind, otype, config, sizes):
    network = laws.create(kind, otype, config, sizes)
    twin = naive.MLP(**sizes, **config)
    assert [tuple(shape) for shape in network.shapes] == twin.shapes
    assert network.n_params == twin.n_params
    assert network.padded_output_dims == twin.shapes[-1][0]


@pytest.mark.parametrize("otype", registry.registered("network"))
def test_network_matches_its_twin(otype):
    """One small network of each; its input is padded with ones, which act as biases."""
    config = {"n_neurons": 16, "n_hidden_layers": 1, "activation": "Tanh"}
    network = numbanet.create_network(13, 3, {"otype": otype, **config}, seed=5)
    twin = naive.MLP(16, 3, **config)
    params = twin.initial_params(naive.PCG32(5))
    np.testing.assert_allclose(network.params, params, atol=1e-7)
    for n in SIZES:
        x = np.random.default_rng(n).normal(size=(n, 13)).astype(np.float32)
        padded = np.concatenate([x, np.ones((n, 3))], axis=1)
        y = network(x)
        assert_close(y, twin.forward(padded, params), 10 * TOLERANCE["value"])
        np.testing.assert_array_equal(y, network(x))


# Losses


def widths(otype, has_pdf):
    """Numbers of outputs; one is enough to tell that a density counts."""
    found = laws.loss_arguments(otype).widths
    return found[-1:] if has_pdf else found


@of_kind("loss")
@pytest.mark.parametrize("has_pdf", [False, True])
def test_loss_matches_its_twin(kind, otype, config, sizes, has_pdf):
    rng = np.random.default_rng(0)
    loss, twin = laws.create(kind, otype, config, sizes), naive.loss({"otype": otype, **config})
    for n in widths(otype, has_pdf):
        row = loss.row(n, has_pdf)
        for _ in range(20):
            prediction, target, pdf = laws.loss_arguments(otype).draw(rng, n)
            gradient, whole = laws.guarded(n)
            gradient[...] = laws.GUARD
            total = row(np.append(prediction, laws.GUARD), target, pdf, whole[1:])
            laws.assert_guards_untouched(gradient, whole)
            density = pdf if has_pdf else np.ones(n)
            arguments = (array.astype(np.float64) for array in (prediction, target, density))
            value, expected = twin(*arguments)
            assert abs(total - value.sum()) <= 1e-5 * np.abs(value).sum()
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


@of_kind("loss")
@pytest.mark.parametrize("has_pdf", [False, True])
@pytest.mark.parametrize("n_rows", [0, 1, 33])
def test_rows_of_a_loss_do_what_the_function_of_a_row_does(
    kind, otype, config, sizes, has_pdf, n_rows
):
    arguments, loss = laws.loss_arguments(otype), laws.create(kind, otype, config, sizes)
    for n in widths(otype, has_pdf):
        drawn = arguments.draw(np.random.default_rng(0), n_rows * n)
        expected = np.zeros((n_rows, n), np.float32)
        rows = zip(*(array.reshape(n_rows, n) for array in drawn), expected, strict=True)
        total = sum(loss.row(n, has_pdf)(*row) for row in rows)
        gradients, whole = laws.guarded(n_rows * n)
        gradients[...] = laws.GUARD
        found = loss.rows(n, has_pdf)(n_rows, *drawn, gradients)
        laws.assert_guards_untouched(gradients, whole)
        np.testing.assert_allclose(found, total, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(gradients.reshape(n_rows, n), expected, rtol=1e-6, atol=1e-6)


@of_kind("loss")
def test_loss_of_a_perfect_prediction_is_zero(kind, otype, config, sizes):
    same = np.array(laws.loss_arguments(otype).perfect, np.float32)
    row = laws.create(kind, otype, config, sizes).row(len(same), False)
    assert row(same, same, same, np.zeros_like(same)) == 0


# Optimizers

LAYOUT = ParamLayout(60, ((4, 8), (2, 4)))  # 40 matrix parameters and 20 others


# Optimizers whose gradients have one scale within a matrix, where they are compared with twins. The
# first covariance of SOAP's wider side is singular. Where it vanishes any basis is right, rounding
# decides which, and the more so the more scales there are: steps along these directions then differ
# by as much as the learning rate, in float32 and in float64 alike.
ONE_SCALE = {"SOAP"}


def gradients(n_steps, rng, one_scale=False):
    """Ordinary, tiny and huge ones, and zeros, among them parameters that never have one."""
    scale = 10.0 ** rng.integers(-6, 4, (1, LAYOUT.n_params))
    for first, last in LAYOUT.matrix_ranges[: len(LAYOUT.shapes)] if one_scale else ():
        scale[:, first:last] = scale[:, first : first + 1]
    values = rng.normal(size=(n_steps, LAYOUT.n_params)) * scale
    values[rng.random(values.shape) < 0.3] = 0
    values[:, ::7] = 0
    return values.astype(np.float32)


@of_kind("optimizer")
def test_optimizer_matches_its_twin(kind, otype, config, sizes):
    rng = np.random.default_rng(0)
    optimizer = laws.create(kind, otype, config, sizes)
    weights = rng.normal(size=LAYOUT.n_params).astype(np.float32)
    all_gradients = gradients(12, rng, otype in ONE_SCALE)
    steps = laws.Steps(optimizer, LAYOUT, weights)
    twin = naive.optimizer({"otype": otype, **config}, LAYOUT.n_params, LAYOUT.shapes)
    expected = weights.astype(np.float64)
    np.testing.assert_array_equal(steps.inference_weights, weights)
    for gradient in all_gradients:
        steps.step(gradient)
        expected = twin.step(expected, gradient.astype(np.float64))
        np.testing.assert_allclose(steps.weights, expected, rtol=2e-5, atol=2e-6)
        inference = getattr(twin, "inference", expected)
        np.testing.assert_allclose(steps.inference_weights, inference, rtol=2e-5, atol=2e-6)


@of_kind("optimizer")
def test_optimizer_is_reproducible(kind, otype, config, sizes):
    rng = np.random.default_rng(1)
    optimizer = laws.create(kind, otype, config, sizes)
    weights = rng.normal(size=LAYOUT.n_params).astype(np.float32)
    all_gradients = gradients(3, rng)
    first, second = (laws.Steps(optimizer, LAYOUT, weights) for _ in range(2))
    for gradient in all_gradients:
        first.step(gradient)
        second.step(gradient)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.state, second.state)
    np.testing.assert_array_equal(first.matrices, second.matrices)


@of_kind("optimizer")
def test_optimizer_on_the_cpu_is_its_functions(kind, otype, config, sizes):
    """The CPU's engine divides the work and changes nothing, with chunks that end anywhere."""
    rng = np.random.default_rng(2)
    optimizer = laws.create(kind, otype, config, sizes)
    weights = rng.normal(size=LAYOUT.n_params).astype(np.float32)
    steps, mine = laws.Steps(optimizer, LAYOUT, weights), laws.Steps(optimizer, LAYOUT, weights)
    arrays = mine.state, mine.matrices, mine.statistics
    for t, gradient in enumerate(gradients(4, rng), 1):
        steps.step(gradient)
        optimize(optimizer, LAYOUT, t, mine.weights, gradient, *arrays, chunk=7)
        np.testing.assert_allclose(mine.weights, steps.weights, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mine.state, steps.state, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mine.matrices, steps.matrices, rtol=1e-5)


@of_kind("optimizer")
def test_a_parameter_that_does_not_move_stays_as_it_is(kind, otype, config, sizes):
    """A GPU leaves out what `moves` says no to."""
    rng = np.random.default_rng(3)
    optimizer = laws.create(kind, otype, config, sizes)
    moves = optimizer.moves(LAYOUT)
    steps = laws.Steps(optimizer, LAYOUT, rng.normal(size=LAYOUT.n_params))
    for gradient in gradients(4, rng):
        weights, state = steps.weights.copy(), steps.state.copy()
        steps.step(gradient)
        stays = [not moves(np.uintp(i), g) for i, g in enumerate(gradient)]
        np.testing.assert_array_equal(steps.weights[stays], weights[stays])
        np.testing.assert_array_equal(steps.state[:, stays], state[:, stays])


@pytest.mark.parametrize(
    ("config", "stays"),
    [
        ({"otype": "Adam"}, True),
        ({"otype": "Adam", "skip_zero_grad_non_matrix_params": False}, False),
        ({"otype": "ExponentialDecay", "nested": {"otype": "Adam"}}, True),
        ({"otype": "WarmUp", "nested": {"otype": "AdamW"}}, True),
        ({"otype": "EMA", "nested": {"otype": "Adam"}}, False),
        ({"otype": "Composite", "nested": [{"n_params_to_optimize": 60, "otype": "Adam"}]}, True),
        ({"otype": "SGD"}, False),
    ],
    ids=str,
)
def test_who_leaves_a_table_without_gradient_alone(config, stays):
    moves = numbanet.create_optimizer(config).moves(LAYOUT)
    of_matrix, of_table = np.uintp(3), np.uintp(LAYOUT.n_matrix_params)
    assert moves(of_matrix, np.float32(0))
    assert moves(of_table, np.float32(1e-30))
    assert moves(of_table, np.float32(0)) != stays


@of_kind("optimizer")
def test_learning_rate_is_no_part_of_the_code(kind, otype, config, sizes):
    optimizer = laws.create(kind, otype, config, sizes)
    first, second = (
        laws.changed(kind, optimizer, optimizer.learning_rate_options(rate)) for rate in (0.1, 0.2)
    )
    assert first != second
    assert (first.learning_rate, second.learning_rate) == (0.1, 0.2)
    assert first.kernel_key() == second.kernel_key()
    assert first.hyperparams() != second.hyperparams()


ROSENBROCK_START = np.array([-1.2, 1.0])
ADAM = {"otype": "Adam", "learning_rate": 0.02, "l2_reg": 0.0}
MINIMISERS = {  # with the learning rate that suits both functions
    "Adam": ADAM,
    "AdamW": {"learning_rate": 0.02, "weight_decay": 0.0},
    "SGD": {"learning_rate": 1e-3, "l2_reg": 0.0},
    "Novograd": {"learning_rate": 1e-3, "beta2": 0.9},
    "Shampoo": {"learning_rate": 3e-3, "l2_reg": 0.0, "cg_on_momentum": False},
    "Muon": {"learning_rate": 2e-3, "momentum": 0.9},
    "SOAP": {"learning_rate": 0.02, "matrix_beta2": 0.99},
    "EMA": {"nested": ADAM},
    "ExponentialDecay": {
        "decay_start": 2500,
        "decay_interval": 250,
        "decay_base": 0.5,
        "nested": {"otype": "Novograd", "learning_rate": 0.03, "beta2": 0.9},
    },
    "CosineDecay": {"n_steps": 4000, "nested": {**ADAM, "learning_rate": 0.05}},
    "WarmUp": {"n_steps": 100, "nested": ADAM},
    "Piecewise": {"points": [[0, 2.0], [3000, 1.0]], "nested": ADAM},
    "ParamGroups": {
        "nested": {**ADAM, "learning_rate": 0.04},
        "groups": [{"parts": "network.0", "learning_rate_factor": 0.5}],
    },
    "Average": {"n_samples": 16, "nested": ADAM},
    "Batched": {"batch_size_multiplier": 2, "nested": {**ADAM, "learning_rate": 0.05}},
    "Lookahead": {"nested": {**ADAM, "learning_rate": 0.05}},
    "Composite": {"nested": [{"n_params_to_optimize": 2, **ADAM}]},
}


@pytest.mark.parametrize("otype", registry.registered("optimizer"))
@pytest.mark.parametrize("target", ["parabola", "rosenbrock"])
def test_optimizer_finds_the_minimum(otype, target):
    """The float32 code walks down, as far as its twin does."""
    layout = ParamLayout(2, ((1, 2),))

    def gradient(w):
        x, y = w.astype(np.float64)
        if target == "parabola":
            return np.array([2 * (x - 1), 20 * (y - 1)])
        return np.array([-2 * (1 - x) - 400 * x * (y - x**2), 200 * (y - x**2)])

    optimizer = laws.create("optimizer", otype, MINIMISERS[otype], {})
    steps = laws.Steps(optimizer, layout, ROSENBROCK_START)
    for _ in range(4000):
        steps.step(gradient(steps.weights))
    tolerance = {"parabola": 2e-3, "rosenbrock": 0.2}[target]
    np.testing.assert_allclose(steps.weights, [1, 1], atol=tolerance)
    np.testing.assert_allclose(steps.inference_weights, [1, 1], atol=tolerance)
