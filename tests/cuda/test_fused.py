"""Whole networks in one kernel: as exact as halves allow, and equal to the chain of kernels.

A reference in NumPy rounds where the kernels round (parameters, features, hidden activations and
gradients) and computes exactly in between. Both are compared with a float64 twin: the kernels may
be off by half as much again as the reference.
"""

import copy
from dataclasses import dataclass, replace
from unittest import mock

import models
import naive
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, batch_of, create_lively, make_config, mlp

import numbanet
from numbanet.activations import activation
from numbanet.cuda.block.layout import MOST_SHARED, SCALE, FusedLayout, fits
from numbanet.cuda.chain import engine as chain_engine
from numbanet.cuda.driver.device import RESERVED
from numbanet.cuda.engine import CudaEngine
from numbanet.cuda.fused import engine as fused_engine
from numbanet.cuda.fused.shapes import FusedShape
from numbanet.cuda.memory.arrays import to_device
from numbanet.cuda.target import CudaTarget
from numbanet.engine import Batch

N = 257
LOSS_SCALE = 128  # of gradients in halves
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
# Of what is added up in halves, relative to the largest.
HALF_SUMS = {"float16": 5e-3, "bfloat16": 5e-2}


def grid(n_features, **options):
    return {
        "otype": "Grid",
        "type": "Hash",
        "n_levels": 16 // n_features,
        "n_features_per_level": n_features,
        "log2_hashmap_size": 7,
        "base_resolution": 3,
        "per_level_scale": 1.3,
        **options,
    }


PER_AXIS = {"resolutions": [[3, 5, 2], 4, [9, 2, 7], [9, 9, 4]] * 2}
COMPOSITE = {
    "otype": "Composite",
    "nested": [
        {**HASH, "n_dims_to_encode": 2},
        {"otype": "SphericalHarmonics", "degree": 3, "n_dims_to_encode": 3},
    ],
}
ODD_PLACE = {  # entries of 4 features from the second parameter on
    "otype": "Composite",
    "nested": [
        {**grid(2), "type": "Tiled", "n_levels": 1, "base_resolution": 1, "n_dims_to_encode": 2},
        {**grid(4), "n_levels": 3},
    ],
}
ONE_BLOB, FREQUENCY = {"otype": "OneBlob", "n_bins": 16}, {"otype": "Frequency", "n_frequencies": 3}
IDENTITY = {"otype": "Identity"}
LATTICES = {"otype": "Permutohedral", "n_levels": 4, "log2_hashmap_size": 6, "base_resolution": 2}
LUMINANCE = "RelativeL2Luminance"  # a loss of whole rows
DENSE = {"type": "Dense", "interpolation": "Smoothstep", "base_resolution": 2, "n_levels": 3}

# name -> n_input_dims, n_output_dims, precision, encoding, network, loss
TRAINED = {
    "hash": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 16, 2), "RelativeL2"),
    "per_axis": (3, 1, "float16", grid(2, **PER_AXIS), mlp("FullyFusedMLP", 16, 1), "L2"),
    "pairs_3d": (3, 1, "float16", grid(2), mlp("FullyFusedMLP", 64, 2, "Sigmoid", "Sigmoid"), "L1"),
    "dense_3d": (
        *(3, 2, "bfloat16", grid(1, **DENSE), mlp("FullyFusedMLP", 32, 2, "Tanh", "SiLU"), "L2"),
    ),
    "wide_entries": (2, 17, "float16", grid(8), mlp("CutlassMLP", 48, 3, "LeakyReLU"), "L2"),
    "entries_of_4": (2, 3, "bfloat16", grid(4), mlp("FullyFusedMLP", 16, 1, "ReLU", "Sine"), "L2"),
    "odd_place": (4, 2, "float16", ODD_PLACE, mlp("FullyFusedMLP", 16, 1), "L2"),
    "one_blob": (2, 33, "float16", ONE_BLOB, mlp("FullyFusedMLP", 32, 5), "L2"),
    "frequency": (3, 16, "float16", FREQUENCY, mlp("FullyFusedMLP", 128, 1, "None", "Tanh"), "L2"),
    "permutohedral": (4, 3, "float16", LATTICES, mlp("FullyFusedMLP", 16, 2), "L2"),
    "identity": (
        *(5, 3, "float16", IDENTITY, mlp("CutlassMLP", 64, 3, "ReLU", "Exponential"), "RelativeL2"),
    ),
    "composite": (5, 3, "float16", COMPOSITE, mlp("FullyFusedMLP", 32, 1), "L2"),
    "luminance": (
        *(2, 3, "float16", HASH, mlp("FullyFusedMLP", 32, 1, "ReLU", "Sigmoid"), LUMINANCE),
    ),
    "two_colours": (4, 19, "bfloat16", IDENTITY, mlp("FullyFusedMLP", 16, 2, "Tanh"), LUMINANCE),
}
INFERRED = {  # too large to train in one kernel, or with an activation that asks for its input
    "smooth": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 64, 4, "SiLU", "Softplus"), "L2"),
    "sine": (3, 1, "bfloat16", IDENTITY, mlp("FullyFusedMLP", 32, 2, "Sine"), "L2"),
    "deep": (2, 16, "float16", ONE_BLOB, mlp("FullyFusedMLP", 128, 3, "Squareplus"), "L2"),
}
CASES = TRAINED | INFERRED
FINE = {**HASH, "n_levels": 16, "base_resolution": 16}
TABLES = {  # whose features decide how exact a network is
    "image": (2, 3, "float16", FINE, mlp("FullyFusedMLP", 64, 2), "RelativeL2"),
    "hash_3d": (3, 1, "float16", {**FINE, "n_levels": 8}, mlp("FullyFusedMLP", 32, 1), "L2"),
}


def rounded(x, precision):
    x = np.asarray(x, np.float32)
    if precision == "float16":
        return x.astype(np.float16).astype(np.float64)
    bits = x.view(np.uint32)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


# The reference

SLOPES = {  # of the activation of hidden layers, from what it gives
    "None": np.ones_like,
    "ReLU": lambda y: (y > 0).astype(y.dtype),
    "LeakyReLU": lambda y: np.where(y > 0, 1, 0.01),
    "Sigmoid": lambda y: y * (1 - y),
    "Tanh": lambda y: 1 - y * y,
}


@dataclass
class Reference:
    """A model that rounds where the kernels round; `params` are rounded already."""

    twin: naive.Model
    params: np.ndarray
    precision: str

    def forward(self, x):
        """The inputs of each matrix, and the output before and after its activation."""
        weights, table = self.twin.split(self.params)
        features = self.twin.encoding.forward(x.astype(np.float64), table)
        inputs, mlp = [rounded(features, self.precision)], self.twin.mlp
        *hidden, last = mlp.matrices(weights)
        for matrix, name in zip(hidden, mlp.activations, strict=False):
            y = naive.activation(name)[0](inputs[-1] @ matrix.T)
            inputs.append(rounded(y, self.precision))
        before = inputs[-1] @ last.T
        return inputs, before, naive.activation(mlp.activations[-1])[0](before)

    def inference(self, x):
        return self.forward(x)[2][:, : self.twin.mlp.n_output_dims]

    def backward(self, x, dl_dy, scale):
        """Gradients of the inputs and of all parameters.

        dl_dy is multiplied by scale where halves hold it.
        """
        mlp, (weights, table) = self.twin.mlp, self.twin.split(self.params)
        matrices, result = mlp.matrices(weights), np.zeros(mlp.n_params)
        results = mlp.matrices(result)
        inputs, before, _ = self.forward(x)
        gradient = np.zeros_like(before)
        gradient[:, : mlp.n_output_dims] = scale * dl_dy
        gradient = gradient * naive.activation(mlp.activations[-1])[1](before)
        for k in reversed(range(len(matrices))):
            gradient = rounded(gradient, self.precision)
            results[k][:] = gradient.T @ inputs[k] / scale
            gradient = gradient @ matrices[k]
            if k:
                gradient = gradient * SLOPES[mlp.activations[k - 1]](inputs[k])
        dl_dfeatures = rounded(gradient, self.precision) / scale
        x = x.astype(np.float64)
        dl_dx = self.twin.encoding.backward_input(x, table, dl_dfeatures)
        dl_dtable = self.twin.encoding.backward_params(x, table, dl_dfeatures)
        return dl_dx, np.concatenate([result, dl_dtable])


# The engines


def total(loss):
    """The sum of the loss of a pass."""
    return loss.sums.numpy()[: loss.n].sum(dtype=np.float64)


class Case:
    """A model of some cases on a device: its engines, its references, and a batch."""

    def __init__(self, name, device, n=N, precision=None, cases=CASES, n_candidates=4, seed=0):
        self.n_input_dims, self.n_output_dims, stored, encoding, network, loss = cases[name]
        self.precision = precision or stored
        config = make_config(copy.deepcopy(encoding), copy.deepcopy(network), loss)
        sizes = self.n_input_dims, self.n_output_dims
        self.device, self.config, self.twin = device, config, naive.Model(*sizes, config)
        self.params = rounded(models.lively_params(self.twin, seed), self.precision)
        self.x = self._inputs(n, n_candidates * n + 8, seed)
        rng = np.random.default_rng(1)
        self.targets = rng.uniform(0.1, 1, (n, self.n_output_dims)).astype(np.float32)
        self.loss, self.loss_twin = numbanet.create_loss(config["loss"]), naive.loss(config["loss"])
        self.reference = Reference(self.twin, self.params, self.precision)
        self.target = CudaTarget(device, self.precision)
        network = numbanet.create_from_config(*sizes, config, device="cpu").network
        self.model = network.engine.model
        self.stored = self.target.parameters(
            self.params.astype(np.float32), self.model.network.n_params
        )
        self.fused = self.engine(fused=True)

    def _inputs(self, n, n_candidates, seed):
        """Some for which halves and float64 agree about which ReLUs are open."""
        x = models.inputs_of(self.twin, n_candidates, seed, self.params)
        weights, table = self.twin.split(self.params)
        features = self.twin.encoding.forward(x.astype(np.float64), table)
        *hidden, _ = self.twin.mlp.layers(features, weights)[1]
        margin = 2 * ROUNDING[self.precision]
        if self.twin.mlp.activations[0].endswith("ReLU"):
            x = x[np.all([(np.abs(values) > margin).all(axis=1) for values in hidden], axis=0)]
        assert len(x) >= n
        return x[:n]

    def engine(self, fused=None):
        return CudaEngine(self.device, self.model, self.precision, fused)

    def launched(self, engine, function):
        """What a function returns, and the names of the kernels that it launched."""
        launch, names = self.device.launch, []

        def recorded(kernel, *arguments):
            names.append(kernel.name)
            launch(kernel, *arguments)

        with mock.patch.object(self.device, "launch", recorded):
            return function(engine), names

    def inference(self, engine):
        x = to_device(self.x, self.device)
        return engine.inference(x, self.stored.current()).numpy()

    def train(self, engine, times=1, **options):
        """(sum of the loss, gradients) of so many passes."""
        gradients = self.target.gradients(self.twin.n_params, self.model.network.n_params)
        batch = self.batch(targets=self.targets, **options)
        for _ in range(times):
            loss = engine.forward_backward(batch, self.stored.current(), self.loss, gradients)
        return total(loss), gradients.flat.numpy()

    def batch(self, **arrays):
        given = {"inputs": self.x, **arrays}
        return Batch(**{name: to_device(each, self.device) for name, each in given.items()})

    def input_gradients(self, engine, external_dl_dy=None, with_params=True):
        """Those of the inputs and, where wanted, of the parameters; of the loss or of dl_dy."""
        dl_dx = self.target.empty(*self.x.shape)
        gradients = self.target.gradients(self.twin.n_params, self.model.network.n_params)
        batch, loss = self.batch(targets=self.targets), self.loss
        if external_dl_dy is not None:
            batch, loss = self.batch(external_dl_dy=external_dl_dy), None
        wanted = gradients if with_params else None
        engine.forward_backward(batch, self.stored.current(), loss, wanted, dl_dx)
        return dl_dx.numpy(), gradients.flat.numpy() if with_params else None

    def loss_of(self, y, pdf=None):
        """The sum of the loss and the gradient of its mean, for outputs."""
        density = np.ones_like(y) if pdf is None else pdf.astype(np.float64)
        value, gradient = self.loss_twin(y, self.targets.astype(np.float64), density)
        return value.sum(), gradient / max(y.size, 1)

    def assert_as_exact(self, found, reference, exact, parts=None):
        """Within 1.5 times the error of the reference, in each of the parts."""
        for part in parts or (slice(None),):
            scale = np.linalg.norm(exact[part])
            error = np.linalg.norm(found[part] - exact[part])
            allowed = np.linalg.norm(reference[part] - exact[part])
            most = 1.5 * allowed + 1e-5 * scale
            assert error <= most, (part, error / scale, allowed / scale)

    def assert_gradients(self, found, dl_dy, which=slice(None)):
        """`found` are gradients of the parameters, dl_dy(outputs) those of the outputs.

        Those of the network and of the encoding, or which of them, are compared by themselves.
        """
        _, exact = self.twin.backward(
            self.x, self.params, dl_dy(self.twin.inference(self.x, self.params))
        )
        of_outputs = dl_dy(self.reference.inference(self.x))
        _, reference = self.reference.backward(self.x, of_outputs, LOSS_SCALE)
        self.assert_as_exact(found, reference, exact, self.parts[which])

    @property
    def parts(self):
        """The parameters of the network and, where it has some, those of the encoding."""
        n = self.twin.mlp.n_params
        return [slice(0, n), slice(n, None)] if self.twin.n_params > n else [slice(0, n)]

    def assert_gradients_in_halves(self, found, tolerance):
        """As assert_gradients, but for those of a table: sums of halves, off by this much."""
        table = self.parts[1]
        self.assert_gradients(found, lambda y: self.loss_of(y)[1], slice(0, 1))
        of_outputs = self.loss_of(self.reference.inference(self.x))[1]
        _, reference = self.reference.backward(self.x, of_outputs, LOSS_SCALE)
        assert_close(found[table], reference[table], tolerance)

    def assert_input_gradients(self, found, dl_dy):
        """As assert_gradients, of the inputs."""
        exact, _ = self.twin.backward(
            self.x, self.params, dl_dy(self.twin.inference(self.x, self.params))
        )
        of_outputs = dl_dy(self.reference.inference(self.x))
        reference, _ = self.reference.backward(self.x, of_outputs, LOSS_SCALE)
        self.assert_as_exact(found, reference, exact)


def emulated(pytestconfig, capability=(9, 0), **options):
    if pytestconfig.getoption("device") == "cuda":
        pytest.skip("needs an emulated GPU of another kind")
    from emulator.device import EmulatedDevice

    device = EmulatedDevice(capability)
    for name, value in options.items():
        setattr(device, name, value)
    return device


def assert_fused(launches, kind):
    """One kernel has done it all; beside it are only conversions and sums of halves."""
    assert [name.startswith(f"fused_{kind}") for name in launches[:1]] == [True]
    assert not any("product" in name or "forward" in name for name in launches)


@pytest.mark.parametrize("name", CASES)
def test_inference_is_as_exact_as_halves_allow(cuda_device, name):
    case = Case(name, cuda_device)
    y, launches = case.launched(case.fused, case.inference)
    assert_fused(launches, "inference")
    exact = case.twin.inference(case.x, case.params)
    case.assert_as_exact(y, case.reference.inference(case.x), exact)


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_as_exact_as_halves_allow(cuda_device, name):
    case = Case(name, cuda_device)
    (loss, gradients), launches = case.launched(case.fused, case.train)
    assert_fused(launches, "training")
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    expected = case.loss_of(case.reference.inference(case.x))[0]
    assert loss == pytest.approx(expected, rel=ROUNDING[case.precision])


@pytest.mark.parametrize("name", ["image", "hash_3d", "entries_of_4"])
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**31 - 1))
def test_any_table_is_interpolated_as_exactly_as_halves_allow(cuda_device, name, seed):
    """Features of random entries: half precision anywhere in between would show here first."""
    case = Case(name, cuda_device, 257, cases=CASES | TABLES, n_candidates=20, seed=seed)
    exact = case.twin.inference(case.x, case.params)
    case.assert_as_exact(case.inference(case.fused), case.reference.inference(case.x), exact)
    case.assert_gradients(case.train(case.fused)[1], lambda y: case.loss_of(y)[1])


# Equal to the chain and to the CPU


@pytest.mark.parametrize("name", ["hash", "composite", "dense_3d"])
def test_the_chain_of_kernels_computes_the_same(cuda_device, name):
    case = Case(name, cuda_device)
    chain, tolerance = case.engine(fused=False), 4 * ROUNDING[case.precision]
    y, launches = case.launched(chain, case.inference)
    assert not any("fused" in launch for launch in launches)
    assert_close(case.inference(case.fused), y, tolerance)
    (loss, gradients), (expected, of_chain) = case.train(case.fused), case.train(chain)
    assert loss == pytest.approx(expected, rel=tolerance)
    assert_close(gradients, of_chain, 2 * tolerance)


@pytest.mark.parametrize("mode", ["overwrite", "accumulate", "ignore"])
def test_a_trainer_on_the_cpu_computes_the_same(cuda_device, mode):
    """Twice the same step, after which gradients are those of one step, or of two, or none."""
    cpu, _ = create_lively("hash")
    gpu, _ = create_lively("hash", device=cuda_device, precision="float16", fused=True)
    x, targets = batch_of("hash", N)
    for _ in range(2):
        losses = [
            float(model.trainer.training_step(x, targets, run_optimizer=False, gradient_mode=mode))
            for model in (cpu, gpu)
        ]
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert_close(gpu.network.gradients.numpy(), cpu.network.gradients, 5e-3)
    assert np.any(cpu.network.gradients) == (mode != "ignore")


# What a pass may be given


@pytest.mark.parametrize("n", [0, 1, 31, 33, 128, 257])
def test_any_batch_size(cuda_device, n):
    case = Case("hash", cuda_device, n)
    y = case.inference(case.fused)
    assert y.shape == (n, 3)
    loss, gradients = case.train(case.fused)
    if n == 0:
        assert loss == 0
        assert not gradients.any()
        return
    exact = case.twin.inference(case.x, case.params)
    assert_close(y, exact, 4 * ROUNDING["float16"])
    if n == 1:  # too few roundings to compare what they come to
        _, exact = case.twin.backward(case.x, case.params, case.loss_of(exact)[1])
        assert_close(gradients, exact, 4 * ROUNDING["float16"])
    else:
        case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=1e-3)


def test_any_place_in_memory(cuda_device):
    """Rows of 16 bytes are read at once, and pairs written, only where that is aligned."""
    create = numbanet.create_network_with_input_encoding
    model = create(4, 2, IDENTITY, mlp("FullyFusedMLP", 16, 1), device=cuda_device, fused=True)
    x = np.random.default_rng(0).random((40, 4), np.float32)
    y = model(x).numpy()
    for shift in (0, 1):
        inputs = to_device(np.append(np.zeros(shift, np.float32), x), cuda_device)[shift:]
        out = to_device(np.zeros(shift + 80, np.float32), cuda_device)[shift:].reshape(40, 2)
        model(inputs.reshape(40, 4), out=out)
        assert np.array_equal(out.numpy(), y)


@pytest.mark.parametrize("name", ["hash", "luminance"])
def test_densities_weigh_the_loss(cuda_device, name):
    case = Case(name, cuda_device)
    pdf = np.random.default_rng(2).uniform(0.1, 2, case.targets.shape).astype(np.float32)
    loss, gradients = case.train(case.fused, pdf=pdf)
    case.assert_gradients(gradients, lambda y: case.loss_of(y, pdf)[1])
    expected = case.loss_of(case.reference.inference(case.x), pdf)[0]
    assert loss == pytest.approx(expected, rel=1e-3)


def gradients_of(case, dl_dy):
    """Those of the parameters for gradients of the outputs."""
    gradients = case.target.gradients(case.twin.n_params, case.twin.mlp.n_params)
    batch, params = case.batch(external_dl_dy=dl_dy), case.stored.current()
    assert case.fused.forward_backward(batch, params, None, gradients).n == 0
    return gradients.flat.numpy()


def test_gradients_from_outside(cuda_device):
    case = Case("hash", cuda_device)
    dl_dy = np.random.default_rng(3).normal(size=case.targets.shape).astype(np.float32)
    case.assert_gradients(gradients_of(case, dl_dy), lambda y: dl_dy.astype(np.float64))


@pytest.mark.parametrize(("first", "last"), [(1e-4, 1e2), (1e2, 1e-4), (0, 1), (1e-4, 1e-4)])
def test_gradients_of_very_different_sizes(pytestconfig, first, last):
    """A block's sums are integers in a unit that its first warps choose."""
    case = Case("hash", emulated(pytestconfig, n_multiprocessors=1), 1000)
    sizes = np.where(np.arange(len(case.x)) < 500, first, last)[:, np.newaxis]
    normal = np.random.default_rng(3).normal(size=case.targets.shape)
    dl_dy = (sizes * normal).astype(np.float32)
    case.assert_gradients(
        gradients_of(case, dl_dy), lambda y: dl_dy.astype(np.float64), slice(1, 2)
    )


@pytest.mark.parametrize(("ratio", "tolerance"), [(1e-2, 0.01), (1e-4, 0.1), (1e-5, 0.3)])
def test_small_gradients_do_not_vanish(pytestconfig, ratio, tolerance):
    """Those of entries that have no others: on an average they are what they should be."""
    case = Case("hash", emulated(pytestconfig, n_multiprocessors=1), 2000)
    assert case.fused.fused.training_shape.layout.n_private == HASH["n_levels"]
    is_large = case.x[:, :1] < 0.5
    normal = np.random.default_rng(3).normal(1, 0.3, case.targets.shape)
    dl_dy = (np.where(is_large, 1, ratio) * normal).astype(np.float32)
    found, n = gradients_of(case, dl_dy), case.twin.mlp.n_params
    _, exact = case.twin.backward(case.x, case.params, dl_dy.astype(np.float64))
    _, large = case.twin.backward(case.x, case.params, np.where(is_large, 1.0, 0.0) * normal)
    of_small = (large[n:] == 0) & (exact[n:] != 0)
    assert of_small.sum() > 20
    found, exact = found[n:][of_small], exact[n:][of_small]
    assert found @ exact / (exact @ exact) == pytest.approx(1, abs=tolerance)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sample", [0, 999])
def test_gradients_that_are_not_finite(pytestconfig, bad, sample):
    """They arrive, also where a block adds up integers."""
    case = Case("hash", emulated(pytestconfig, n_multiprocessors=1), 1000)
    dl_dy = np.full(case.targets.shape, 1e-3, np.float32)
    dl_dy[sample] = bad
    found = gradients_of(case, dl_dy)[case.twin.mlp.n_params :]
    of_sample = case.twin.backward(case.x[sample:][:1], case.params, np.ones((1, 3)))[1]
    touched = of_sample[case.twin.mlp.n_params :] != 0
    assert touched.any()
    assert not np.isfinite(found[touched]).any()
    assert np.isfinite(found[~touched]).all()


def test_gradients_are_added(cuda_device):
    case = Case("hash", cuda_device)
    _, once = case.train(case.fused)
    _, twice = case.train(case.fused, times=2)
    assert_close(twice, 2 * once, 1e-5)


def test_a_pass_for_the_loss_alone(cuda_device):
    case = Case("hash", cuda_device)
    batch, params = case.batch(targets=case.targets), case.stored.current()
    loss = total(case.fused.forward_backward(batch, params, case.loss))
    assert loss == pytest.approx(case.train(case.fused)[0], rel=1e-6)


# What decides how it is computed


@pytest.mark.parametrize("n_private", [0, 2])
def test_levels_may_be_private_to_a_block(cuda_device, n_private):
    """None, or some of them; where memory allows, all are."""
    case = Case("hash", cuda_device)
    shape = case.fused.fused.training_shape
    assert shape.layout.n_private == HASH["n_levels"]
    layout = replace(shape.layout, n_private=n_private)
    case.fused.fused.training_shape = replace(shape, layout=layout)
    _, gradients = case.train(case.fused)
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])


def test_private_levels_are_those_that_fit(cuda_device):
    layout = Case("hash", cuda_device).fused.fused.training_shape.layout
    ends = layout.model.encoding.partition_param_ends
    base = layout.rows[-1] + SCALE
    assert layout.with_private(base).n_private == 0
    for k, end in enumerate(ends):
        assert layout.with_private(base + 4 * end - 1).n_private == k
        with_level = layout.with_private(base + 4 * end)
        assert (with_level.n_private, with_level.shared_bytes) == (k + 1, base + 4 * end)


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_one_group_where_two_do_not_fit(pytestconfig, n_blocks):
    usual = Case("hash", emulated(pytestconfig)).fused.fused.training_shape.layout
    alone = replace(usual, n_groups=1)
    shared_bytes = n_blocks * (replace(alone, n_private=0).shared_bytes + RESERVED + 300)
    device = emulated(pytestconfig, n_multiprocessors=1, max_shared_bytes=shared_bytes - RESERVED)
    case = Case("hash", device, 1000)
    if n_blocks == 1:
        assert case.fused.fused.training_shape.layout.n_groups == 1
    else:  # two groups need the weights only once
        assert case.fused.fused.training_shape.layout.n_groups == 2
        case.fused.fused.training_shape = FusedShape(replace(alone, n_private=1), 2, 2)
    loss, gradients = case.train(case.fused)
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=1e-3)


@pytest.mark.parametrize("packs_outputs", [False, True])
def test_one_group_of_all_warps(cuda_device, packs_outputs):
    """Where the gradients of all weights are too many for the registers of half of them."""
    network = mlp("CutlassMLP", 48, 4, "Tanh", "Sigmoid")
    case = Case(
        "deep", cuda_device, 300, cases={"deep": (2, 17, "bfloat16", ONE_BLOB, network, "L2")}
    )
    shape = case.fused.fused.training_shape
    assert (shape.layout.n_warps, shape.layout.n_groups, shape.layout.packs_outputs) == (
        8,
        1,
        False,
    )
    layout = replace(shape.layout, packs_outputs=packs_outputs)
    case.fused.fused.training_shape = replace(shape, layout=layout)
    (loss, gradients), launches = case.launched(case.fused, case.train)
    assert_fused(launches, "training")
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=1e-2)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_compute_capability_8_0(pytestconfig, precision):
    """No stores of matrices, and gradients of tables in halves."""
    case = Case("hash", emulated(pytestconfig, (8, 0)), precision=precision)
    exact = case.twin.inference(case.x, case.params)
    case.assert_as_exact(case.inference(case.fused), case.reference.inference(case.x), exact)
    (_, gradients), launches = case.launched(case.fused, case.train)
    assert_fused(launches, "training")
    case.assert_gradients_in_halves(gradients, HALF_SUMS[precision])


def test_a_block_takes_one_tile_after_another(pytestconfig):
    case = Case("hash", emulated(pytestconfig, n_multiprocessors=1), 1000)
    exact = case.twin.inference(case.x, case.params)
    case.assert_as_exact(case.inference(case.fused), case.reference.inference(case.x), exact)
    loss, gradients = case.train(case.fused)
    case.assert_gradients(gradients, lambda y: case.loss_of(y)[1])
    assert loss == pytest.approx(case.loss_of(case.reference.inference(case.x))[0], rel=1e-3)


def test_more_sums_of_the_loss_than_a_slab_has(pytestconfig):
    """A slab of the chain has a bounded number of blocks; the GPU may be big."""
    n_most, times = chain_engine.LOSS_BLOCKS * chain_engine.SUMS_PER_BLOCK, 33
    case = Case("hash", emulated(pytestconfig, n_multiprocessors=1000), n_most)
    x, targets = (np.tile(array, (times, 1)) for array in (case.x, case.targets))
    batch = case.batch(inputs=x, targets=targets)
    loss = case.fused.forward_backward(batch, case.stored.current(), case.loss)
    assert loss.n > n_most
    expected = times * case.loss_of(case.reference.inference(case.x))[0]
    assert total(loss) == pytest.approx(expected, rel=1e-3)


def layout_of(n_neurons, n_hidden_layers, trains, activation="ReLU", n_outputs=3):
    config = make_config(HASH, mlp("CutlassMLP", n_neurons, n_hidden_layers, activation))
    model = numbanet.create_from_config(2, n_outputs, config, device="cpu").network.engine.model
    return FusedLayout(model, 4, trains)


def test_what_fits():
    """The rule in words stands in fits()."""
    for width, depth, trains, expected in (
        *((16, 1, True, True), (64, 2, True, True), (128, 1, True, True), (48, 3, True, True)),
        *((64, 4, True, False), (128, 2, True, False), (33, 1, True, False)),
        *((64, 4, False, True), (128, 5, False, True), (144, 1, False, False)),
        *((33, 1, False, False), (16, 0, False, False)),
    ):
        assert fits(layout_of(width, depth, trains)) is expected, (width, depth, trains)
    needs_input = [name for name in ("SiLU", "Sine") if activation(name).from_input]
    for name in needs_input:
        assert fits(layout_of(16, 1, False, name))
        assert not fits(layout_of(16, 1, True, name))
    assert needs_input
    layout = layout_of(128, 5, False)
    assert layout.shared_bytes <= MOST_SHARED
    assert not fits(layout, layout.shared_bytes - 1)


@pytest.mark.parametrize("name", ["hash", "smooth"])
def test_what_does_not_fit_is_left_to_the_chain(pytestconfig, name):
    case = Case(name, emulated(pytestconfig, max_shared_bytes=1024), 33)
    (_, gradients), launches = case.launched(case.engine(), case.train)
    assert not any("fused" in launch or "wide" in launch for launch in launches)
    _, expected = case.train(case.engine(fused=False))
    assert_close(gradients, expected, 1e-6)


def test_what_has_places_beyond_32_bits_is_left_to_the_chain(cuda_device, monkeypatch):
    """It takes one slab after the other, as wide training does."""
    case = Case("hash", cuda_device)
    for run, kind in ((case.inference, "inference"), (case.train, "training")):
        monkeypatch.setattr(fused_engine, "MOST_NUMBERS", 3 * N - 1)
        _, launches = case.launched(case.engine(), run)
        assert not any("fused" in launch for launch in launches)
        monkeypatch.setattr(fused_engine, "MOST_NUMBERS", 3 * N)
        _, launches = case.launched(case.engine(), run)
        assert_fused(launches, kind)
