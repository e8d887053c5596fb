"""The oracle itself: known numbers, and derivatives against central differences."""

import naive
import naive_encodings
import numpy as np
import pytest


def central_difference(function, x, step=1e-6):
    """d function / d x_d on a new last axis."""
    columns = [
        (function(x + step * axis) - function(x - step * axis)) / (2 * step)
        for axis in np.eye(x.shape[1])
    ]
    return np.stack(columns, axis=-1)


def test_pcg32_draws_the_known_numbers():
    rng = naive.PCG32(1337)
    assert [rng.next_uint() for _ in range(4)] == [634364130, 2023056239, 747258445, 554556854]
    rng = naive.PCG32(1337)
    rng.advance(1000)
    assert rng.next_uint() == 45264763
    floats = naive.PCG32(1337).uniform(4)
    np.testing.assert_allclose(floats, [0.147699356, 0.471029401, 0.173984647, 0.129117727])


def test_seed_sequence_is_that_of_cpp():
    assert naive.seed_sequence(1337) == [2150097757, 2293033019]
    rng = naive.make_rng(1337, "trainer")
    assert [rng.next_uint() for _ in range(3)] == [490526434, 3914230802, 2427584315]


def test_hash_grid_has_the_known_tables():
    grid = naive.Grid(2, log2_hashmap_size=15, per_level_scale=1.5)
    resolutions = [shape[0] for shape in grid.resolutions]
    assert resolutions[:7] == [16, 24, 36, 54, 81, 122, 183]
    assert resolutions[7:] == [274, 411, 616, 923, 1384, 2076, 3114, 4671, 7007]
    assert grid.entries == [256, 576, 1296, 2920, 6568, 14888] + [2**15] * 10
    assert grid.n_params == 708368
    assert naive.Grid(3).n_params == 14229504
    assert naive.Grid(3, per_level_scale=1.5).n_params == 13026992


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ((1, 2), 1013904227),
        ((100, 200), 2606174764),
        ((5, 6, 7), 3848060720),
        ((1000, 2000, 3000), 2316627744),
        ((2**32 - 1, 0, 3), 1878587712),
        ((1, 2, 3, 4), 3228761608),
    ],
)
def test_coherent_prime_hash_gives_the_known_numbers(cell, expected):
    assert naive.HASHES["coherentprime"](cell) == expected


def test_one_blob_gives_the_known_numbers():
    wide = naive.OneBlob(1, n_bins=16).forward(np.array([[0.3], [0.02]]), None)
    np.testing.assert_allclose(wide[0, 3:6], [0.00856, 0.674, 0.31744], atol=1e-9)
    np.testing.assert_allclose(wide[1, [0, 1, 15]], [0.7483904, 0.0317587, 0.2198509], atol=1e-7)
    narrow = naive.OneBlob(1, n_bins=4).forward(np.array([[0.3], [1.0], [-0.1]]), None)
    expected = [[0.31744, 0.674, 0.00856, 0], [0.5, 0, 0, 0.5], [0.16308, 0, 0.05792, 0.779]]
    np.testing.assert_allclose(narrow, expected, atol=1e-9)


OVERLAPPING = [
    {"otype": "Grid", "n_levels": 2, "base_resolution": 2, "n_dims_to_encode": 2},
    {"otype": "OneBlob", "n_bins": 2, "n_dims_to_encode": 2, "dims_to_encode_begin": 1},
    {
        "otype": "Grid",
        "n_levels": 2,
        "base_resolution": 3,
        "n_dims_to_encode": 1,
        "dims_to_encode_begin": 0,
    },
]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "encoding",
    [
        naive.Identity(3, scale=2.0, offset=-1.0),
        naive.OneBlob(2, n_bins=8),
        naive_encodings.Frequency(2, n_frequencies=2),
        naive_encodings.TriangleWave(2, n_frequencies=3),
        naive_encodings.SphericalHarmonics(3, degree=5),
        naive_encodings.Composite(3, OVERLAPPING),
        naive_encodings.Composite(3, OVERLAPPING, "Sum"),
        naive_encodings.Composite(3, OVERLAPPING, "Product").padded(16),
        naive.Grid(1, n_levels=2, base_resolution=3),
        naive.Grid(2, n_levels=3, base_resolution=3, log2_hashmap_size=4, per_level_scale=1.7),
        naive.Grid(3, n_levels=2, base_resolution=3, interpolation="Smoothstep", type="Tiled"),
        naive.Grid(2, n_levels=2, base_resolution=3, interpolation="Nearest", type="Dense"),
    ],
    ids=lambda encoding: type(encoding).__name__,
)
def test_derivatives_of_encodings_are_central_differences(encoding, seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-0.3, 1.3, (40, encoding.n_dims))
    x = x[(encoding.distance_to_border(x) > 1e-3).all(axis=1)]
    params = rng.normal(size=encoding.n_params)
    dl_dy = rng.normal(size=(len(x), encoding.n_outputs))
    dl_ddx = rng.normal(size=x.shape)

    jacobian = encoding.jacobian(x, params)
    numeric = central_difference(lambda x: encoding.forward(x, params), x)
    np.testing.assert_allclose(jacobian, numeric, atol=1e-6)
    hessian = encoding.hessian(x, params)
    numeric = central_difference(lambda x: encoding.jacobian(x, params), x)
    np.testing.assert_allclose(hessian, numeric, atol=1e-5)

    # No encoding is more than quadratic in its parameters: this difference is exact.
    direction = rng.normal(size=encoding.n_params)
    there, back = params + direction, params - direction
    by_params = np.sum(dl_dy * (encoding.forward(x, there) - encoding.forward(x, back))) / 2
    by_gradient = np.sum(encoding.backward_params(x, params, dl_dy) * direction)
    np.testing.assert_allclose(by_gradient, by_params, atol=1e-9)
    gradients = (encoding.backward_input(x, p, dl_dy) for p in (there, back))
    by_params = np.sum(dl_ddx * np.subtract(*gradients)) / 2
    by_gradient = np.sum(encoding.double_backward_params(x, params, dl_dy, dl_ddx) * direction)
    np.testing.assert_allclose(by_gradient, by_params, atol=1e-9)


@pytest.mark.parametrize("name", naive.ACTIVATIONS)
def test_derivatives_of_activations_are_central_differences(name):
    value, derivative = naive.activation(name)
    x = np.linspace(-3, 3, 60)[:, None]  # 0, where some have a kink, is not among them
    numeric = central_difference(value, x)[..., 0]
    np.testing.assert_allclose(derivative(x), numeric, atol=1e-7)
    numeric = central_difference(derivative, x)[..., 0]
    np.testing.assert_allclose(naive.SECOND_DERIVATIVES[name](x), numeric, atol=1e-7)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("n_hidden_layers", [0, 1, 3])
def test_derivatives_of_the_perceptron_are_central_differences(n_hidden_layers, bias):
    rng = np.random.default_rng(0)
    mlp = naive.MLP(5, 3, 7, n_hidden_layers, "Tanh", "Sigmoid", bias)
    params = rng.normal(size=mlp.n_params)
    x, dl_dy = rng.normal(size=(4, 5)), rng.normal(size=(4, 3))
    dl_dx, dl_dparams = mlp.backward(x, params, dl_dy)
    numeric = central_difference(lambda x: mlp.forward(x, params), x)
    np.testing.assert_allclose(dl_dx, np.einsum("nk,nkd->nd", dl_dy, numeric), atol=1e-7)
    numeric = central_difference(
        lambda p: np.array([np.sum(dl_dy * mlp.forward(x, row)) for row in p]), params[None]
    )
    np.testing.assert_allclose(dl_dparams, numeric[0], atol=1e-7)


SMOOTHSTEP = {
    "otype": "Grid",
    "n_levels": 2,
    "base_resolution": 3,
    "per_level_scale": 1.7,
    "interpolation": "Smoothstep",
}


@pytest.mark.parametrize("n_hidden_layers", [0, 1, 3])
@pytest.mark.parametrize("encoding", [SMOOTHSTEP, {"otype": "Frequency", "n_frequencies": 1}])
def test_second_derivatives_of_a_model_are_central_differences(encoding, n_hidden_layers):
    rng = np.random.default_rng(0)
    network = {
        "n_neurons": 7,
        "n_hidden_layers": n_hidden_layers,
        "activation": "Tanh",
        "output_activation": "Sigmoid",
        "bias": n_hidden_layers != 0,
    }
    model = naive.Model(2, 3, {"encoding": encoding, "network": network})
    params = 0.5 * rng.normal(size=model.n_params)
    x = rng.uniform(0, 1, (20, 2))
    x = x[(model.encoding.distance_to_border(x) > 1e-3).all(axis=1)][:4]
    dl_dy, dl_ddx = rng.normal(size=(4, 3)), rng.normal(size=(4, 2))

    def slope(x, params, dl_dy):  # of each sample
        return np.sum(dl_ddx * model.backward(x, params, dl_dy)[0], axis=1)

    dl_ddy, dl_dx, dl_dparams = model.double_backward(x, params, dl_dy, dl_ddx)
    numeric = central_difference(lambda dl_dy: slope(x, params, dl_dy), dl_dy)
    np.testing.assert_allclose(dl_ddy, numeric, atol=1e-6)
    numeric = central_difference(lambda x: slope(x, params, dl_dy), x)
    np.testing.assert_allclose(dl_dx, numeric, atol=1e-5)
    numeric = central_difference(
        lambda p: np.array([np.sum(slope(x, row, dl_dy)) for row in p]), params[None]
    )
    np.testing.assert_allclose(dl_dparams, numeric[0], atol=1e-6)


# The relative losses hold their denominator fixed; that of MAPE is fixed anyway.
@pytest.mark.parametrize("name", ["l1", "l2", "mape", "crossentropy", "variance", "huber", "logl1"])
def test_derivatives_of_losses_are_central_differences(name):
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 50))
    if name in ("crossentropy", "variance"):
        p, t = 0.1 + np.abs(p), np.abs(t)
    pdf = rng.uniform(0.1, 2, 50)
    loss = naive.LOSSES[name]
    _, gradient = loss(p, t, pdf)
    numeric = (loss(p + 1e-6, t, pdf)[0] - loss(p - 1e-6, t, pdf)[0]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)


@pytest.mark.parametrize("config", [{"otype": "Adam"}, {"otype": "SGD"}], ids=str)
def test_optimizers_descend_a_parabola(config):
    target = np.array([1.0, -2.0, 0.5])
    weights = np.zeros(3)
    optimizer = naive.optimizer({**config, "learning_rate": 0.05}, 3, [(1, 2)])
    for _ in range(400):
        weights = optimizer.step(weights, 2 * (weights - target))
    np.testing.assert_allclose(weights, target, atol=1e-3)
