"""The matrix products of the CUDA target against float64 NumPy, on the emulator."""

import itertools
import re
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from naive import activation, second_derivative
from test_gates import ASSEMBLED, sm

from emulator.ptx import Counters, EmulatedMemory, Module
from numbanet.activations import activation as act
from numbanet.cuda.chain import matrix_product
from numbanet.cuda.chain.matrix_product import ACTIVATION_TYPES, MatrixProduct, products_for
from numbanet.cuda.chain.products import Product
from numbanet.cuda.toolchain.assembler import assemble
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.registry import registered

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
EPSILON = {"float32": 2**-20, "float16": 2**-11, "bfloat16": 2**-8}  # of a rounded result
GUARD = np.nan  # reaches every sum that it is read for
# (fan_out, fan_in, samples)
SIZES = [(1, 1, 1), (16, 16, 33), (33, 5, 257), (65, 70, 130), (136, 72, 41)]
precisions = pytest.mark.parametrize("precision", TYPES)
halves = pytest.mark.parametrize("precision", ["float16", "bfloat16"])
sizes = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


@dataclass
class Emulated:
    """A device on the emulator, as far as the products need one."""

    compute_capability: tuple = (9, 0)
    n_multiprocessors: int = 1
    racecheck: str = "global"
    memory: EmulatedMemory = field(default_factory=EmulatedMemory)
    modules: dict = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)

    def build(self, function, argument_types, block, max_registers=None):
        capability = self.compute_capability
        ptx = compile_ptx(function, argument_types, capability, max_registers, block)
        if ptx.name not in self.modules:
            self.modules[ptx.name] = Module(ptx.text, self.memory)
        return ptx.name

    def launch(self, kernel, grid, block, shared_bytes, arguments):
        values = [arguments[i] for i in range(len(arguments))]
        raw = [
            np.float32(v) if t == "float32" else v
            for v, t in zip(values, arguments.types, strict=True)
        ]
        options = {"shared_bytes": shared_bytes, "racecheck": self.racecheck}
        module = self.modules[kernel]
        module.launch(kernel, grid, block, raw, counters=self.counters, **options)


@pytest.fixture(scope="module")
def device():
    return Emulated()


def encode(x, precision):
    """To what is stored; of a bfloat16, the bits."""
    x = np.asarray(x, np.float32)
    if precision != "bfloat16":
        return x.astype(precision)
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def decode(stored, precision):
    if precision == "bfloat16":
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


class Matrix:
    """A matrix [w, n] in device memory with `pitch` columns, guarded all around."""

    def __init__(self, device, x, precision, pitch=None):
        x = np.asarray(x, np.float64)
        self.shape, self.precision = x.shape, precision
        n_columns = pitch or x.shape[1]
        self.n_around = 64
        n = x.shape[0] * n_columns + 2 * self.n_around
        dtype = TYPES[precision]
        start = device.memory.allocate(n * np.dtype(dtype).itemsize)
        self.whole = device.memory.view(start, dtype, n)
        self.whole[:] = encode(GUARD, precision)
        self.rows = self.whole[self.n_around : -self.n_around].reshape(-1, n_columns)
        self.rows[:, : x.shape[1]] = encode(x, precision)
        self.address = start + self.n_around * np.dtype(dtype).itemsize

    @property
    def values(self):
        """What is stored, after a check that nothing was written around it."""
        around = np.ones(self.whole.size, bool)
        inside = around[self.n_around : -self.n_around].reshape(self.rows.shape)
        inside[:, : self.shape[1]] = False
        assert np.isnan(decode(self.whole[around], self.precision)).all()
        return decode(self.rows[:, : self.shape[1]], self.precision)


def operands(size, precision, seed=0):
    """Weights, inputs and gradients of the outputs, rounded to what is stored, and the pitch."""
    fan_out, fan_in, n = size
    rng = np.random.default_rng(seed)
    shapes = (fan_out, fan_in), (fan_in, n), (fan_out, n)
    arrays = (rng.normal(size=shape) / np.sqrt(shape[0]) for shape in shapes)
    return *(decode(encode(x, precision), precision) for x in arrays), -(-n // 64) * 64


def assert_close(actual, expected, precision, scale=1.0):
    tolerance = EPSILON[precision]
    np.testing.assert_allclose(actual, expected, rtol=2 * tolerance, atol=tolerance * scale)


def check_forward(device, precision, size, name, offset=0, biased=False):
    """Compare y, and what is kept; `offset` moves the weights by some numbers."""
    fan_out, fan_in, n = size
    weights, x, dl_dy, pitch = operands(size, precision)
    bias = dl_dy[:, 0] if biased else np.zeros(0)
    moved = np.concatenate([np.zeros(offset), weights.ravel(), np.full(3, GUARD), bias])[None]
    w = Matrix(device, moved, precision)
    x_there = Matrix(device, x, precision, pitch)
    y, kept = (Matrix(device, np.zeros((fan_out, n)), precision, pitch) for _ in range(2))
    first_bias = (weights.size + 3,) if biased else ()
    sizes = fan_out, fan_in, n, pitch
    launch = MatrixProduct(device, precision).forward(act(name), *sizes, *first_bias)
    address = w.address + offset * w.whole.itemsize
    launch(address, x_there.address, y.address, kept.address)
    before = weights @ x
    if biased:
        before += bias[:, None]
    assert_close(y.values, activation(name)[0](before), precision)
    if act(name).from_input:
        assert_close(kept.values, before, precision)
    else:
        assert (kept.values == 0).all()


@precisions
@sizes
@pytest.mark.parametrize("name", ["ReLU", "SiLU"])
def test_forward(device, precision, size, name):
    check_forward(device, precision, size, name)


@precisions
@sizes
@pytest.mark.parametrize("name", ["SiLU"])
def test_forward_with_a_bias(device, precision, size, name):
    check_forward(device, precision, size, name, biased=True)


@precisions
def test_weights_at_any_address(device, precision):
    check_forward(device, precision, (16, 24, 30), "None", offset=3)


def run_backward(device, precision, size, name):
    """The gradient of the inputs, and what it should be."""
    fan_out, fan_in, n = size
    weights, before, dl_dy, pitch = operands(size, precision, 1)
    value, slope = activation(name)
    from_input = act(name).from_input
    w, dy = Matrix(device, weights, precision), Matrix(device, dl_dy, precision, pitch)
    kept = Matrix(device, before if from_input else value(before), precision, pitch)
    dx = Matrix(device, np.zeros((fan_in, n)), precision, pitch)
    launch = MatrixProduct(device, precision).backward(act(name), fan_out, fan_in, n, pitch)
    launch(w.address, dy.address, dx.address, kept.address)
    return dx.values, weights.T @ dl_dy * slope(before)


@precisions
@sizes
def test_backward(device, precision, size):
    assert_close(*run_backward(device, precision, size, "ReLU"), precision)


@pytest.mark.parametrize("name", registered("activation"))
def test_backward_of_each_activation(device, name):
    actual, expected = run_backward(device, "float32", (7, 6, 35), name)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@precisions
def test_backward_of_no_activation_reads_nothing_kept(device, precision):
    weights, _, dl_dy, pitch = operands((3, 5, 10), precision)
    w, dy = Matrix(device, weights, precision), Matrix(device, dl_dy, precision, pitch)
    dx = Matrix(device, np.zeros((5, 10)), precision, pitch)
    launch = MatrixProduct(device, precision).backward(act("None"), 3, 5, 10, pitch)
    launch(w.address, dy.address, dx.address, 0)
    assert_close(dx.values, weights.T @ dl_dy, precision)


def check_weight_gradients(device, precision, size):
    fan_out, fan_in, n = size
    _, x, dl_dy, pitch = operands(size, precision, 2)
    x_there = Matrix(device, x, precision, pitch)
    dy = Matrix(device, dl_dy, precision, pitch)
    dw = Matrix(device, np.full((fan_out, fan_in), 0.5), "float32")
    launch = MatrixProduct(device, precision).weight_gradients(fan_out, fan_in, n, pitch)
    factors = 0.25, -2.0
    for factor in factors:
        launch(dy.address, x_there.address, dw.address, factor)
    expected = 0.5 + sum(factors) * (dl_dy @ x.T)
    np.testing.assert_allclose(dw.values, expected, rtol=1e-5, atol=1e-6 * np.sqrt(n))
    return launch


@precisions
@pytest.mark.parametrize("size", [*SIZES, (20, 3, 1100)], ids=lambda size: "x".join(map(str, size)))
def test_weight_gradients_are_added(device, precision, size):
    launch = check_weight_gradients(device, precision, size)
    n_resident = products_for(device, precision).weight_gradients(precision, *size[:2]).n_resident
    assert launch.grid[2] == min(-(-size[2] // 256), n_resident)


@halves
@pytest.mark.parametrize("capability", [(7, 5), (8, 0)], ids=["sm_75", "sm_80"])
def test_gpus_before_hopper(precision, capability):
    device, size = Emulated(capability), (40, 24, 75)
    check_forward(device, precision, size, "SiLU")
    assert_close(*run_backward(device, precision, size, "ReLU"), precision)
    check_weight_gradients(device, precision, size)
    assert (device.counters.mma > 0) == (capability >= (8, 0))


@precisions
@pytest.mark.parametrize("name", ["Tanh", "Sine"])
@pytest.mark.parametrize("size", [(1, 1), (3, 65), (5, 257)])
def test_the_activation_of_the_output(device, precision, name, size):
    n_rows, n = size
    _, before, dl_dy, pitch = operands((n_rows, n_rows, n), precision)
    value, slope = activation(name)
    kept = Matrix(device, before if name == "Sine" else value(before), precision, pitch)
    dy = Matrix(device, dl_dy, precision, pitch)
    MatrixProduct(device, precision).activation_backward(act(name), n_rows, n, pitch)(
        dy.address, kept.address
    )
    assert_close(dy.values, dl_dy * slope(before), precision, scale=4)


@precisions
@pytest.mark.parametrize("name", ["Tanh", "Sine"])
@pytest.mark.parametrize("size", [(1, 1), (3, 65)])
def test_tangents_and_their_gradients(device, precision, name, size):
    n_rows, n = size
    _, before, dl_dy, pitch = operands((n_rows, n_rows, n), precision)
    tangents, dl_dtangents = dl_dy[::-1, ::-1].copy(), dl_dy[:, ::-1].copy()
    value, slope = activation(name)
    bend = second_derivative(name)
    kept = Matrix(device, before if name == "Sine" else value(before), precision, pitch)
    dx = Matrix(device, tangents, precision, pitch)
    dy = Matrix(device, 0 * tangents, precision, pitch)
    product = MatrixProduct(device, precision)
    product.activate_tangents(act(name), n_rows, n, pitch)(dx.address, kept.address, dy.address)
    assert_close(dy.values, tangents * slope(before), precision, scale=4)
    values, along = (Matrix(device, each, precision, pitch) for each in (dl_dy, dl_dtangents))
    product.activate_tangents_backward(act(name), n_rows, n, pitch)(
        values.address, along.address, dx.address, kept.address
    )
    expected = dl_dy * slope(before) + dl_dtangents * tangents * bend(before)
    assert_close(values.values, expected, precision, scale=8)
    assert_close(along.values, dl_dtangents * slope(before), precision, scale=4)


def test_no_samples_are_no_blocks():
    """The driver refuses an empty grid, so the device launches nothing for one."""
    products = MatrixProduct(Emulated(), "float32")
    assert 0 in products.forward(act("ReLU"), 3, 2, 0, 0).grid
    assert 0 in products.backward(act("ReLU"), 3, 2, 0, 0).grid
    assert 0 in products.weight_gradients(3, 2, 0, 0).grid
    assert 0 in products.activation_backward(act("ReLU"), 3, 0, 0).grid


def test_a_batch_beyond_the_indices_is_refused():
    products = MatrixProduct(Emulated(), "float32")
    with pytest.raises(ValueError, match=r"2147483712 numbers .* 2147483648 are possible"):
        products.forward(act("ReLU"), 64, 3, 2**25 + 1, 2**25 + 1)
    with pytest.raises(ValueError, match="numbers"):
        products.weight_gradients(2**16, 2**16, 1, 64)


@precisions
@pytest.mark.parametrize("width", [64, 128])
def test_shared_memory_has_no_bank_conflicts(precision, width):
    device = Emulated()
    n = 128
    weights, x, dl_dy, pitch = operands((width, width, n), precision)
    w, there = Matrix(device, weights, precision), Matrix(device, x, precision, pitch)
    dy = Matrix(device, dl_dy, precision, pitch)
    result, dw = Matrix(device, 0 * x, precision, pitch), Matrix(device, 0 * weights, "float32")
    products, sizes = MatrixProduct(device, precision), (width, width, n, pitch)
    addresses = w.address, there.address, result.address
    products.forward(act("SiLU"), *sizes)(*addresses, dy.address)
    products.backward(act("ReLU"), *sizes)(*addresses, dy.address)
    products.weight_gradients(*sizes)(dy.address, there.address, dw.address, 1)
    assert device.counters.shared_wavefronts > 0
    assert device.counters.shared_conflicts == 0


def kernels(precision, capability):
    """Products and the types of their arguments."""
    types = matrix_product.SAMPLE_TYPES
    products = products_for(SimpleNamespace(compute_capability=capability), precision)
    elementwise = (
        (matrix_product.activation_backward, ACTIVATION_TYPES),
        (matrix_product.activate_tangents, matrix_product.TANGENT_TYPES),
        (matrix_product.activate_tangents_backward, matrix_product.TANGENT_BACKWARD_TYPES),
    )
    for name in ("ReLU", "SiLU", "Softplus"):
        sides = (16, 64, 128) if name == "SiLU" else (64,)
        for make, side in itertools.product((products.forward, products.backward), sides):
            yield make(precision, act(name), side), types
        for make, its_types in elementwise:
            function = make(precision, act(name))
            yield Product(function, 1, 1, 1, matrix_product.N_THREADS, 1), its_types
    for side in (64, 128):
        product = products.forward(precision, act("SiLU"), side, biased=True)
        yield product, matrix_product.BIASED_TYPES
    for size in (64, 64), (64, 128), (128, 128), (16, 64), (64, 16):
        yield products.weight_gradients(precision, *size), matrix_product.WEIGHT_TYPES


@pytest.mark.parametrize(("capability", "precision"), [*ASSEMBLED, ((8, 0), "float32")], ids=sm)
@pytest.mark.usefixtures("current_assembler")
def test_machine_code_keeps_everything_in_registers(precision, capability):
    for product, types in kernels(precision, capability):
        limits = product.max_registers, product.n_threads
        ptx = compile_ptx(product.kernel, types, capability, *limits)
        for unwanted in (r"\.f64", r"\.local", r"\bcall", r"\bcvta", r"\bld\.f", r"div\.u64"):
            assert not re.search(unwanted, ptx.text), (ptx.name, unwanted)
        resources = assemble(ptx, capability).resources
        spills = resources.spill_stores, resources.spill_loads, resources.local_bytes
        assert spills == (0, 0, 0), ptx.name
        assert resources.registers <= (product.max_registers or 128), ptx.name
        assert product.shared_bytes <= 99 * 1024, ptx.name  # the least that all GPUs have
