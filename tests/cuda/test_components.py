"""Every registered component on the CUDA target, against its float64 twin.

Kernels read parameters in three precisions and compute in float32, so that with a twin that is
given the rounded parameters the tolerances are those of the CPU.
"""

import json

import laws
import naive
import numpy as np
import pytest
from laws import TOLERANCE, EncodingData, assert_close
from stand_in_engine import StandInEngine

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cuda.chain.loss_kernels import AT_ONCE, loss_kernel
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.memory.arrays import empty, to_device, zeros
from numbanet.cuda.target import CudaTarget
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.identity import Identity
from numbanet.engine import Batch
from numbanet.optimizers.base import ParamLayout

PRECISIONS = ("float32", "float16", "bfloat16")
# The error of rounding to a precision, relative to the number.
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def label(value):
    return json.dumps(value) if isinstance(value, dict) else str(value)


def of_kind(kind):
    cases = laws.examples(kind)
    return pytest.mark.parametrize(("otype", "config", "sizes"), cases, ids=label)


def of_kind_and_precision(kind):
    """All examples of a kind; precisions take turns, for a kernel is compiled for each."""
    cases = [(PRECISIONS[k % 3], *case) for k, case in enumerate(laws.examples(kind))]
    return pytest.mark.parametrize(("precision", "otype", "config", "sizes"), cases, ids=label)


def rounded(x, precision):
    """The nearest numbers that a precision can hold, as float32."""
    x = np.asarray(x, np.float32)
    if precision == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    if precision == "bfloat16":
        bits = x.view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return x


def host(array):
    """A device array of any precision as float32."""
    values = array.numpy()
    if values.dtype == np.uint16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


class OnDevice:
    """An encoding, its twin and their arguments, those of the kernels on the device."""

    def __init__(self, device, precision, otype, config, sizes, n):
        encoding = laws.create("encoding", otype, config, sizes)
        twin = naive.encoding({"otype": otype, **config}, **sizes)
        self.data = EncodingData(encoding, twin, n)
        self.data.params = rounded(self.data.params, precision)
        target = CudaTarget(device, precision)
        self.engine = target.encoding_engine(encoding)
        self.x, self.dl_dy, self.dl_ddx = (
            to_device(array, device) for array in (self.data.x, self.data.dl_dy, self.data.dl_ddx)
        )
        self.params = target.parameters(self.data.params, 0).current()
        self.gradients = target.gradients(encoding.n_params, 0)
        self.dl_dx = to_device(np.full_like(self.data.x, laws.GUARD), device)


@of_kind_and_precision("encoding")
@pytest.mark.parametrize("n", [0, 1, 33, 257])
def test_encoding_matches_its_twin(cuda_device, precision, otype, config, sizes, n):
    on = OnDevice(cuda_device, precision, otype, config, sizes, n)
    data = on.data
    x, params, dl_dy, _ = data.doubles()
    y = on.engine.forward(on.x, on.params)
    data.assert_close(y.numpy(), data.twin.forward(x, params), "value")
    wants_gradients = data.encoding.n_params > 0
    gradients = on.gradients if wants_gradients else None
    on.engine.backward(on.x, on.params, on.dl_dy, gradients, on.dl_dx)
    expected = data.twin.backward_input(x, params, dl_dy)
    data.assert_close(on.dl_dx.numpy(), expected, "first")
    if wants_gradients:
        expected = data.twin.backward_params(x, params, dl_dy)
        data.assert_close(on.gradients.flat.numpy(), expected, "first")


@of_kind_and_precision("encoding")
def test_double_backward_matches_its_twin(cuda_device, precision, otype, config, sizes):
    on = OnDevice(cuda_device, precision, otype, config, sizes, 33)
    data = on.data
    gradients = on.gradients if data.encoding.n_params > 0 else None
    found = on.engine.double_backward(on.x, on.params, on.dl_dy, on.dl_ddx, gradients)
    expected = data.twin.double_backward(*data.doubles())
    data.assert_close(found[0].numpy(), expected[0], "first")
    data.assert_close(found[1].numpy(), expected[1], "second")
    if gradients is not None:
        data.assert_close(gradients.flat.numpy(), expected[2], "first")


@of_kind_and_precision("encoding")
def test_encoding_gives_what_the_cpu_gives(cuda_device, precision, otype, config, sizes):
    on = OnDevice(cuda_device, precision, otype, config, sizes, 257)
    y = on.engine.forward(on.x, on.params).numpy()
    on.data.assert_close(y, on.data.forward(), "value")
    np.testing.assert_array_equal(y, on.engine.forward(on.x, on.params).numpy())


@of_kind_and_precision("network")
def test_network_matches_its_twin(cuda_device, precision, otype, config, sizes):
    """Weights and inputs are rounded for the twin too; what remains is the hidden layers'."""
    network = laws.create("network", otype, config, sizes)
    twin = naive.MLP(**sizes, **config)
    target = CudaTarget(cuda_device, precision)
    rng = np.random.default_rng(0)
    weights = rounded(twin.initial_params(naive.PCG32(3)), precision)
    encoding = Identity(n_dims=network.n_input_dims)
    engine = target.network_engine(EncodedNetwork(encoding, network))
    params = target.parameters(weights, network.n_params)
    for n in (0, 1, 33, 257):
        x = rounded(rng.normal(size=(n, network.n_input_dims)), precision)
        dl_dy = rounded(rng.normal(size=(n, network.n_output_dims)), precision)
        inputs, given = to_device(x, cuda_device), to_device(dl_dy, cuda_device)
        y = engine.inference(inputs, params.current()).numpy()
        double = weights.astype(np.float64)
        expected = twin.forward(x.astype(np.float64), double)
        tolerance = 10 * TOLERANCE["value"] + 8 * ROUNDING[precision]
        assert_close(y, expected, tolerance)
        gradients = target.gradients(network.n_params, network.n_params)
        dl_dx = empty(x.shape, np.float32, cuda_device)
        batch = Batch(inputs, external_dl_dy=given)
        engine.forward_backward(batch, params.current(), None, gradients, dl_dx)
        found = twin.backward(x.astype(np.float64), double, dl_dy.astype(np.float64))
        assert_close(dl_dx.numpy(), found[0], 10 * tolerance)
        assert_close(gradients.flat.numpy(), found[1], 10 * tolerance)


@of_kind("loss")
@pytest.mark.parametrize(
    ("n_outputs", "has_pdf", "precision"),
    [
        (3, False, "float16"),
        (3, True, "bfloat16"),
        (2 * AT_ONCE + 3, False, "float32"),
        (2 * AT_ONCE + 3, True, "float16"),
    ],
)
def test_loss_matches_its_twin(cuda_device, precision, otype, config, sizes, has_pdf, n_outputs):
    loss = laws.create("loss", otype, config, sizes)
    twin, rng = naive.loss({"otype": otype, **config}), np.random.default_rng(0)
    draw = laws.loss_arguments(otype).draw
    scale = 0.25
    kernel = Kernel(cuda_device, loss_kernel(loss, n_outputs, has_pdf, precision))
    target = CudaTarget(cuda_device, precision)
    for n, pitch in ((1, 64), (257, 320)):
        drawn = (array.reshape(n, n_outputs) for array in draw(rng, n * n_outputs))
        prediction, targets, pdf = drawn
        prediction = rounded(prediction, precision)
        columns = np.full((n_outputs, pitch), 7, np.float32)
        columns[:, :n] = prediction.T
        y = target.parameters(columns.reshape(-1), 0).current()
        dl_dy = target.parameters(np.full(columns.size, 9, np.float32), 0).current()
        sums = zeros((1024,), np.float32, cuda_device)
        there = [to_device(array, cuda_device) for array in (targets, pdf)]
        addresses = [array.address for array in there]
        kernel(2, y.address, n, pitch, *addresses, dl_dy.address, scale, sums.address)
        density = pdf.astype(np.float64) if has_pdf else np.ones((n, n_outputs))
        value, gradient = twin(prediction.astype(np.float64), targets.astype(np.float64), density)
        assert sums.numpy().sum(dtype=np.float64) == pytest.approx(value.sum(), rel=1e-5)
        found = host(dl_dy).reshape(n_outputs, pitch)
        tolerance = 1e-5 + ROUNDING[precision]
        np.testing.assert_allclose(found[:, :n].T, scale * gradient, rtol=tolerance, atol=1e-4)
        assert (found[:, n:] == rounded(9, precision)).all(), "wrote outside of its samples"


LAYOUT = ParamLayout(60, ((4, 8), (2, 4)))  # 40 matrix parameters and 20 others


@of_kind("optimizer")
def test_optimizer_gives_what_the_cpu_gives(cuda_device, otype, config, sizes):
    optimizer = laws.create("optimizer", otype, config, sizes)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=LAYOUT.n_params).astype(np.float32)
    history = rng.normal(size=(5, LAYOUT.n_params)).astype(np.float32)
    history[rng.random(history.shape) < 0.3] = 0
    history[:, 44:52] = 0  # of whole groups that one thread steps
    expected = laws.Steps(optimizer, LAYOUT, weights)
    target = CudaTarget(cuda_device, "float16")
    parameters = target.parameters(weights, LAYOUT.n_matrix_params)
    engine = StandInEngine(zeros((1,), np.float32, cuda_device), "float16")
    training = target.training(engine, parameters, optimizer, LAYOUT)
    gradients = target.gradients(LAYOUT.n_params, LAYOUT.n_matrix_params)
    batch = Batch(zeros((1, 1), np.float32, cuda_device))
    # Roots of matrices enlarge what is rounded differently, on a GPU and by NumPy's products, which
    # add up in an order that depends on the processor; and so do SOAP's bases where a covariance is
    # singular, as that of 4 rows is in 8 columns: float32 and float64 differ there by 7e-4 too.
    rtol = {"Shampoo": 1e-4, "SOAP": 1e-3}.get(otype, 2e-5)
    for gradient in history:
        expected.step(gradient)
        target.copy_from_host(gradients.flat, gradient)
        given = batch, parameters.current(), None, optimizer, gradients, None
        training.step(*given, overwrite=False, run_optimizer=True)
        found = parameters.master.numpy()
        np.testing.assert_allclose(found, expected.weights, rtol=rtol, atol=rtol / 10)
        np.testing.assert_allclose(
            training.state.numpy(), expected.state, rtol=rtol, atol=rtol / 10
        )
        np.testing.assert_array_equal(host(parameters.copy), rounded(found, "float16"))
    assert training.n_steps == len(history)


def test_blocks_are_whole_warps():
    assert BLOCK % 32 == 0
