"""All layers of a network in float32 in one kernel: like the products of single layers."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, make_config, mlp
from naive import activation
from test_tensor_floats import cut_off

import numbanet
from emulator.device import EmulatedDevice
from emulator.ptx import matrix
from numbanet.cuda.chain import engine
from numbanet.cuda.chain.float_passes import float_passes
from numbanet.cuda.chain.layers import Layers, rows_between
from numbanet.cuda.memory.arrays import to_device
from numbanet.networks.base import next_multiple

PITCH = 192
# (n_input_dims, n_output_dims, network)
NETWORKS = {
    "deep, ragged, with biases": (16, 5, mlp("CutlassMLP", 21, 3, "SiLU", "Sigmoid", bias=True)),
    "shallow": (32, 17, mlp("FullyFusedMLP", 16, 1, "ReLU")),
}
LINEAR = 32, 3, mlp("FullyFusedMLP", 64, 2, "None")


def network_of(n_inputs, n_outputs, config):
    created = numbanet.create_network(n_inputs, n_outputs, config, device="cpu")
    return created.engine.model.network


class Whole:
    """A network's passes on the emulator, over memory that was NaN, and what they leave there."""

    def __init__(self, network, n, params=None, seed=0):
        rng = np.random.default_rng(seed)
        self.network, self.n = network, n
        self.device = EmulatedDevice(racecheck="global")
        if params is None:
            params = rng.normal(size=network.n_params) / 4
        self.params = np.asarray(params, np.float32)
        self.passes = float_passes(self.device, network, "float32")
        self.rows = rows_between(network, keeps_gradients=True)
        self.layers = Layers(self.device, network, "float32", PITCH, keeps_gradients=True)
        address, size = self.layers.memory.address, self.layers.memory.size
        self.there = self.device.memory.view(address, np.float32, size).reshape(-1, PITCH)
        self.there[:] = np.nan
        self.weights, self.biases = self._layers()

    def _layers(self):
        """Matrices and biases, without padded outputs."""
        starts, found, params = 0, [], self.params.astype(np.float64)
        for rows, columns in self.network.shapes:
            found.append(params[starts : starts + rows * columns].reshape(rows, columns))
            starts += rows * columns
        n_outputs = self.network.n_output_dims
        found[-1] = found[-1][:n_outputs]
        sizes = [len(each) for each in found]
        starts = self.network.bias_starts or (None,) * len(sizes)
        biases = [
            np.zeros(size) if start is None else params[start : start + size]
            for start, size in zip(starts, sizes, strict=True)
        ]
        return found, biases

    def at(self, row, n_rows):
        return self.there[row : row + n_rows, : self.n].astype(np.float64)

    def forward(self, x):
        self.there[: len(x), : self.n] = x
        given = to_device(self.params, self.device)
        self.passes.forward(self.n, given.address, self.layers)

    def backward(self, dl_dy, to_features=True):
        row = self.rows.dl_dvalues[-1]
        self.there[row : row + len(dl_dy), : self.n] = dl_dy
        given = to_device(self.params, self.device)
        self.passes.backward(self.n, given.address, self.layers, to_features)

    def forward_sums(self, k):
        """Operand and result of layer k, before its activation."""
        x = self.at(self.rows.values[k], self.weights[k].shape[1])
        return x, self.weights[k] @ x + self.biases[k][:, None]


def drawn(whole, seed=1):
    rng = np.random.default_rng(seed)
    n_inputs, n_outputs = whole.network.n_input_dims, whole.network.n_output_dims
    return (rng.normal(size=(size, whole.n)).astype(np.float32) for size in (n_inputs, n_outputs))


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("n", [1, 133])
def test_each_layer(name, n):
    """Each from what the layer before has left, and nothing else is written."""
    whole = Whole(network_of(*NETWORKS[name]), n)
    x, dl_dy = drawn(whole)
    whole.forward(x)
    whole.backward(dl_dy)
    network, rows, is_left = whole.network, whole.rows, np.ones(whole.there.shape, bool)
    for k, each in enumerate(network.layer_activations):
        _, before = whole.forward_sums(k)
        after, n_rows = activation(each.name)[0](before), len(before)
        assert_close(whole.at(rows.values[k + 1], n_rows), after)
        assert_close(whole.at(rows.kept[k], n_rows), before if each.from_input else after)
        gradient = whole.weights[k].T @ whole.at(rows.dl_dvalues[k + 1], n_rows)
        if k:
            _, below = whole.forward_sums(k - 1)
            gradient *= activation(network.layer_activations[k - 1].name)[1](below)
        assert_close(whole.at(rows.dl_dvalues[k], len(gradient)), gradient)
        for row in (rows.values[k + 1], rows.kept[k], rows.dl_dvalues[k + 1]):
            is_left[row : row + n_rows] = False
    for row in rows.values[0], rows.dl_dvalues[0]:
        is_left[row : row + network.n_input_dims] = False
    is_left[:, next_multiple(n, 32) :] = True
    assert np.isnan(whole.there[is_left]).all()


def test_gradients_of_features_only_where_they_are_wanted():
    whole = Whole(network_of(*NETWORKS["shallow"]), 40)
    x, dl_dy = drawn(whole)
    whole.forward(x)
    whole.backward(dl_dy, to_features=False)
    first, n_features = whole.rows.dl_dvalues[0], whole.network.n_input_dims
    assert np.isnan(whole.there[first : first + n_features]).all()
    assert np.isfinite(whole.at(whole.rows.dl_dvalues[1], 16)).all()


@pytest.fixture(scope="module")
def linear():
    return Whole(network_of(*LINEAR), 64)


def errors(whole):
    """Errors of all sums, and what they are to be measured by, with the depth."""
    for k, weights in enumerate(whole.weights):
        pairs = [
            (weights, whole.rows.values[k], whole.rows.values[k + 1]),
            (weights.T, whole.rows.dl_dvalues[k + 1], whole.rows.dl_dvalues[k]),
        ]
        for a, source, target in pairs:
            b = whole.at(source, a.shape[1])
            yield np.abs(whole.at(target, len(a)) - a @ b), np.abs(a) @ np.abs(b), a.shape[1]


@pytest.mark.parametrize("rounding", ["to the nearest", "cut off"])
def test_as_exact_as_documented(linear, monkeypatch, rounding):
    """The bound is that of docs/design/float32_products.md."""
    if rounding == "cut off":
        monkeypatch.setattr(matrix, "rounded", cut_off)
    x, dl_dy = drawn(linear)
    linear.forward(x)
    linear.backward(dl_dy)
    for error, magnitude, depth in errors(linear):
        bound = 2.0**-21 + 2.0**-22 + -(-depth // 8) * 2.0**-24
        assert (error <= bound * magnitude + 2.0**-24 * magnitude).all()


def multiply_adds(a, b):
    """a @ b in float32, one depth after the other."""
    total = np.zeros((len(a), b.shape[1]), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for depth in range(a.shape[1]):
            total = (a[:, depth, None] * b[depth] + total).astype(np.float32)
    return total


def test_infinities_and_overflows_are_those_of_multiply_adds(linear):
    x, dl_dy = drawn(linear)
    largest = np.finfo(np.float32).max
    for k, value in enumerate((np.inf, -np.inf, np.nan, largest, -largest, largest / 2)):
        x[2 * k, 9 * k + 1] = value
        dl_dy[k % 3, 9 * k + 2] = value
    linear.forward(x)
    linear.backward(dl_dy)
    rows, n_infinite = linear.rows, 0
    for k, weights in enumerate(linear.weights):
        for a, source, target in (
            (weights, rows.values[k], rows.values[k + 1]),
            (weights.T, rows.dl_dvalues[k + 1], rows.dl_dvalues[k]),
        ):
            result = linear.at(target, len(a))
            b = linear.at(source, a.shape[1])
            expected = multiply_adds(a, b)
            is_finite = np.isfinite(expected)
            np.testing.assert_array_equal(result[~is_finite], expected[~is_finite])
            error = np.abs(np.where(is_finite, result, 0) - np.where(is_finite, expected, 0))
            assert (error <= 1e-5 * (np.abs(a) @ np.where(np.isfinite(b), np.abs(b), 0))).all()
            n_infinite += np.isinf(expected).sum()
    assert n_infinite > 100


def test_the_choice():
    device = EmulatedDevice()
    narrow = network_of(*LINEAR)
    assert float_passes(device, narrow, "float32") is not None
    assert float_passes(device, narrow, "float16") is None
    assert float_passes(EmulatedDevice((8, 9)), narrow, "float32") is None
    for sizes in (
        (32, 3, mlp("FullyFusedMLP", 64, 8)),  # does not fit shared memory
        (32, 3, mlp("FullyFusedMLP", 128, 2)),
        (32, 65, mlp("FullyFusedMLP", 64, 2)),
        (80, 3, mlp("FullyFusedMLP", 64, 2)),
        (32, 3, mlp("CutlassMLP", 64, 0)),
    ):
        assert float_passes(device, network_of(*sizes), "float32") is None


def step_of(deterministic, seed, whole=True):
    """Loss, gradients and launches of a step."""
    device = EmulatedDevice()
    device.order = np.random.default_rng(seed)
    config = make_config(HASH, mlp("FullyFusedMLP", 16, 2, "SiLU", bias=True), "L2")
    with pytest.MonkeyPatch.context() as patch:
        if not whole:
            patch.setattr(engine, "float_passes", lambda *given: None)
        options = {"device": device, "precision": "float32", "deterministic": deterministic}
        model = numbanet.create_from_config(2, 3, config, **options)
    rng = np.random.default_rng(5)
    x, y = (rng.random((97, size), dtype=np.float32) for size in (2, 3))
    loss = model.trainer.training_step(x, y, run_optimizer=False)
    return float(loss), model.network.gradients.numpy(), model(x).numpy(), set(device.launches)


def test_a_step_is_that_of_single_layers():
    loss, gradients, outputs, launches = step_of(False, 0)
    assert {"network_forward_16_SiLU_float32", "network_backward_to_features_16_SiLU_float32"} <= (
        launches
    )
    assert not any(name.startswith(("tensor_forward", "tensor_backward")) for name in launches)
    other_loss, others, other_outputs, launches = step_of(False, 0, whole=False)
    assert not any(name.startswith("network_") for name in launches)
    assert loss == pytest.approx(other_loss, rel=1e-6)
    np.testing.assert_allclose(outputs, other_outputs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients, others, rtol=1e-4, atol=1e-7)


def test_deterministic_steps_are_the_same_bits():
    first, second = (step_of(True, seed)[:3] for seed in (1, 2))
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        np.testing.assert_array_equal(one, other)
