"""Derivatives of composed models and of encodings by themselves, against float64 twins."""

import models
import naive_composed
import numpy as np
import pytest
from laws import assert_close
from models import mlp

import numbanet

TOLERANCE = {"values": 1e-5, "jacobian": 1e-4, "second": 1e-3, "gradient": 1e-3}
WAVES = {"otype": "Frequency", "n_frequencies": 2}
HEAD = {
    "inputs": ["density[1:4]", "direction", "input[2]"],
    "encoding": {"otype": "Identity", "scale": 0.5, "offset": 0.25},
    "network": mlp("CutlassMLP", 7, 1, "Tanh", "Sigmoid"),
    "n_output_dims": 3,
}
PARTS = {
    "density": {
        "inputs": ["input[1]", "input[0]"],
        "encoding": models.SMOOTH,
        "network": mlp("FullyFusedMLP", 16, 1, "Softplus"),
        "n_output_dims": 4,
    },
    "direction": {"inputs": "input[2]", "encoding": WAVES},
    "color": HEAD,
}
# name -> n_input_dims, parts, outputs
CASES = {
    "two heads": (3, PARTS, ["color", "density[0]"]),
    "shared": (
        3,
        {
            "here": {
                "inputs": "input[0:2]",
                "encoding": {"otype": "RandomFourier", "n_features": 8},
            },
            "there": {"inputs": ["input[2]", "input[2]"], "shares": "here"},
            "head": {
                "inputs": ["here[2:4]", "there"],
                "network": mlp("CutlassMLP", 5, 1, "Sine"),
                "n_output_dims": 2,
            },
        },
        ["head"],
    ),
    "an encoding": (2, {"grid": {"inputs": "input", "encoding": models.SMOOTH}}, ["grid"]),
}


def created(name, **options):
    """A model of a case with lively parameters, and outputs and parameters of its twin."""
    n_dims, parts, outputs = CASES[name]
    config = {"parts": parts, "outputs": outputs}
    model = numbanet.create_composed_model(n_dims, config, **{"device": "cpu", **options})
    rng, params = np.random.default_rng(5), np.array(model.params)
    for key, place in model.composition.places.items():
        if key.endswith("params"):
            params[place.start : place.stop] = 0.5 * rng.normal(size=place.stop - place.start)
    model.params = params
    twin = naive_composed.Composed(n_dims, config)

    def forward(x, flat):
        named = {
            key: flat[place.start : place.stop].reshape(place.shape)
            for key, place in model.composition.places.items()
        }
        return twin.forward(x, twin.params_of(named))

    return model, forward, params.astype(np.float64)


def slope(function, h=2e-4):
    """The derivative at 0 by central differences of the fourth order."""
    return (8 * (function(h) - function(-h)) - function(2 * h) + function(-2 * h)) / (12 * h)


def twin_derivatives(forward, x, params):
    """Values, Jacobian and Hessian of the twin's outputs."""
    units = np.eye(x.shape[1])

    def of_first(u, offset=0.0):
        return slope(lambda h: forward(x + offset + h * u, params))

    hessian = [[slope(lambda h, u=u, v=v: of_first(u, h * v)) for v in units] for u in units]
    jacobian = np.stack([of_first(u) for u in units], -1)
    return forward(x, params), jacobian, np.moveaxis(np.array(hessian), (0, 1), (-2, -1))


def chosen(hessian, wanted):
    if wanted == "hessian":
        return hessian
    return np.einsum("nkdd->nk" if wanted == "laplacian" else "nkdd->nkd", hessian)


def inputs(n_dims, n):
    """Away from the borders of the grid's cells."""
    x = np.random.default_rng(n).random((200 * n + 1, n_dims), np.float32)
    grid = models.naive.encoding(models.SMOOTH, 2)
    clear = (grid.distance_to_border(x[:, :2].astype(np.float64)) > 2e-2).all(axis=1)
    return x[clear][:n]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("two heads", "hessian"),
        ("two heads", "laplacian"),
        ("shared", "diagonal"),
        ("an encoding", "laplacian"),
    ],
)
def test_derivatives_and_gradients_match_the_twin(name, wanted):
    model, forward, params = created(name)
    for n in (0, 1, 33):
        x = inputs(model.n_input_dims, n)
        found = model.derivatives(x, wanted=wanted)
        arrays = twin_derivatives(forward, x.astype(np.float64), params)
        arrays = *arrays[:2], chosen(arrays[2], wanted)
        rng, names = np.random.default_rng(n), ("values", "jacobian", wanted)
        weights = [rng.normal(size=each.shape).astype(np.float32) for each in arrays]
        for key, array, kind in zip(names, arrays, TOLERANCE, strict=False):
            assert_close(getattr(found, key), array, TOLERANCE[kind])
        found.backward(*weights[:2], **{f"dl_d{wanted}": weights[2]})
        gradients = np.array(model.gradients, np.float64)
        if n == 0 or not params.size:
            assert not gradients.any()
            continue
        for place in model.composition.places.values():
            direction = np.zeros_like(params)
            direction[place.start : place.stop] = rng.normal(size=place.stop - place.start)

            def loss(step, direction=direction, x=x, weights=weights):
                values, jacobian, hessian = twin_derivatives(
                    forward, x.astype(np.float64), params + step * direction
                )
                of_all = values, jacobian, chosen(hessian, wanted)
                return sum((w * each).sum() for w, each in zip(weights, of_all, strict=True))

            size = np.linalg.norm(gradients[place.start : place.stop])
            size *= np.linalg.norm(direction)
            assert abs(gradients @ direction - slope(loss)) < TOLERANCE["gradient"] * size


def test_what_is_refused():
    parts = {**PARTS, "color": {**HEAD, "encoding": {**WAVES}}}
    config = {"parts": parts, "outputs": "color"}
    model = numbanet.create_composed_model(3, config, device="cpu")
    with pytest.raises(TypeError, match=r"part color: .* by Frequency; let a part of its own"):
        model.derivatives(np.zeros((1, 3)))


def test_an_encoding_by_itself():
    """With the features of its padding, and the message where it is not smooth."""
    encoding = numbanet.create_encoding(2, WAVES, alignment=16, device="cpu")
    x = np.random.default_rng(0).random((5, 2), np.float32)
    found = encoding.derivatives(x, wanted="diagonal")
    np.testing.assert_array_equal(found.values, encoding(x))
    assert_close(found.jacobian[:, 3], np.asarray(encoding.input_gradient(3, x)), 1e-6)
    squares = np.float32([1, 1, 4, 4] * 2) * np.pi**2
    curvature = np.asarray(found.diagonal).sum(axis=2)[:, :8]
    assert_close(curvature, -squares * np.asarray(found.values)[:, :8], 1e-5)
    lattice = numbanet.create_encoding(2, {"otype": "Permutohedral", "n_levels": 2}, device="cpu")
    assert lattice.derivatives(x, order=1).jacobian.shape == (5, 4, 2)
    with pytest.raises(TypeError, match="Permutohedral: its features have no second derivatives"):
        lattice.derivatives(x)
