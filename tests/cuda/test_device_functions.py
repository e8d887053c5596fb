"""Models inside of users' kernels: what `inference` gives, whatever the other lanes do."""

import copy
import re

import models
import naive
import numpy as np
import pytest
from laws import assert_close

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from models import HASH, make_config, mlp
from numba import cuda, float32
from test_fused import COMPOSITE, IDENTITY, ONE_BLOB, ROUNDING, emulated, grid

import numbanet
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.in_kernels.user_kernel import parameter
from numbanet.cuda.memory.arrays import empty, to_device
from numbanet.cuda.memory.dlpack import BFLOAT16, Imported
from numbanet.cuda.memory.inputs import is_c_order
from numbanet.cuda.toolchain import compiler
from numbanet.cuda.toolchain.assembler import assemble

N = 257
GARBAGE = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -3, 5e9], np.float32)
UNWANTED = r"\.f64\b|\.local\b|\bcall\b"

# name -> n_input_dims, n_output_dims, precision, encoding, network
FUSED = {
    "hash": (2, 3, "float16", HASH, mlp("FullyFusedMLP", 16, 2)),
    "one_blob": (3, 33, "float16", ONE_BLOB, mlp("FullyFusedMLP", 32, 3, "SiLU", "Tanh")),
    "composite": (5, 5, "bfloat16", COMPOSITE, mlp("FullyFusedMLP", 32, 1, "ReLU", "Sigmoid")),
    "entries_of_8": (2, 17, "float16", grid(8), mlp("CutlassMLP", 48, 3, "LeakyReLU")),
    "identity": (5, 1, "bfloat16", IDENTITY, mlp("FullyFusedMLP", 64, 2, "Sine")),
    "wide": (2, 16, "float16", ONE_BLOB, mlp("FullyFusedMLP", 128, 1, "Squareplus", "Softplus")),
}
ALONE = {  # what no fused kernel evaluates
    "float32": (2, 3, "float32", HASH, mlp("FullyFusedMLP", 16, 2)),
    "odd": (5, 2, "float16", COMPOSITE, mlp("CutlassMLP", 33, 2, "SiLU", "Sigmoid", bias=True)),
    "linear": (3, 17, "bfloat16", ONE_BLOB, mlp("CutlassMLP", 16, 0, "ReLU", "Softplus")),
    "wider": (2, 1, "float16", IDENTITY, mlp("CutlassMLP", 144, 1)),
}
CASES = FUSED | ALONE
TOLERANCE = {"float32": 1e-5} | {key: 4 * each for key, each in ROUNDING.items()}


def create(name, device, **options):
    n_input_dims, n_output_dims, precision, encoding, network = CASES[name]
    config = make_config(copy.deepcopy(encoding), copy.deepcopy(network))
    model = numbanet.create_from_config(
        n_input_dims, n_output_dims, config, **{"device": device, "precision": precision, **options}
    )
    twin = naive.Model(n_input_dims, n_output_dims, config)
    model.network.params = models.lively_params(twin)
    return model


def inputs(network, n, seed=0):
    return np.random.default_rng(seed).random((n, network.n_input_dims), np.float32)


def evaluation(functions, network):
    """A kernel (params, x, garbage, y) for a thread per sample; lanes beyond take garbage."""
    load, infer = functions.load, functions.infer
    n_in, n_out = network.n_input_dims, network.n_output_dims

    def evaluate(params, x, garbage, y):
        load(params)
        i = cuda.grid(1)
        point, value = cuda.local.array(n_in, float32), cuda.local.array(n_out, float32)
        for d in range(n_in):
            point[d] = x[i, d] if i < x.shape[0] else garbage[i % garbage.shape[0]]
        infer(params, point, value)
        if i < x.shape[0]:
            for k in range(n_out):
                y[i, k] = value[k]

    return evaluate


def evaluated(network, functions, x, params=None):
    """The outputs for x of a kernel with these device functions."""
    kernel = functions.kernel(evaluation(functions, network))
    target, y = network.target, network.target.zeros(len(x), network.n_output_dims)
    params = network.kernel_params(params)
    blocks = -(-len(x) // functions.threads_per_block)
    kernel(blocks, params, target.from_host(x), target.from_host(GARBAGE), y)
    return y.numpy()


# The values


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_gets_what_inference_gives(cuda_device, name):
    network = create(name, cuda_device).network
    functions, x = network.device_functions(), inputs(network, N if name in FUSED else 65)
    assert functions.fused == (name in FUSED)
    y = evaluated(network, functions, x)
    assert np.ptp(y, axis=0).min() > 1e-2
    assert_close(y, network(x).numpy(), TOLERANCE[network.precision])


@pytest.mark.parametrize("n", [1, 31, 33])
def test_any_number_of_samples(cuda_device, n):
    network = create("hash", cuda_device).network
    x = inputs(network, n)
    y = evaluated(network, network.device_functions(threads_per_block=32), x)
    assert_close(y, network(x).numpy(), TOLERANCE["float16"])


@pytest.mark.parametrize("name", ["hash", "one_blob", "composite"])
def test_lanes_without_a_sample_disturb_nobody(cuda_device, name):
    """They take part with any numbers, wherever they are in the warp."""
    network = create(name, cuda_device).network
    functions = network.device_functions(threads_per_block=64)
    rng, x = np.random.default_rng(1), inputs(network, N)
    expected, is_garbage = network(x).numpy(), rng.random(N) < 0.7
    x[is_garbage] = rng.choice(GARBAGE, (is_garbage.sum(), network.n_input_dims))
    y = evaluated(network, functions, x)
    assert 0 < is_garbage.sum() < N
    assert_close(y[~is_garbage], expected[~is_garbage], TOLERANCE[network.precision])


def test_alone_equals_together(cuda_device):
    network = create("hash", cuda_device).network
    x = inputs(network, N)
    alone, together = (
        evaluated(network, network.device_functions(fused=fused), x) for fused in (False, True)
    )
    assert_close(alone, together, TOLERANCE["float16"])
    assert not np.array_equal(alone, together)  # or one of them was not what it claims


def test_compute_capability_8_0(pytestconfig):
    network = create("hash", emulated(pytestconfig, (8, 0))).network
    functions, x = network.device_functions(), inputs(network, N)
    assert functions.fused
    y = evaluated(network, functions, x)
    assert_close(y, network(x).numpy(), TOLERANCE["float16"])


def test_each_lane_works_alone_before_ampere(pytestconfig):
    network = create("hash", emulated(pytestconfig, (7, 5))).network
    functions, x = network.device_functions(), inputs(network, N)
    assert not functions.fused
    y = evaluated(network, functions, x)
    assert_close(y, network(x).numpy(), TOLERANCE["float16"])


# Blocks and shared memory


def test_a_block_may_have_dimensions_and_take_many_tiles(cuda_device):
    network = create("hash", cuda_device).network
    functions = network.device_functions(threads_per_block=64)
    load, infer = functions.load, functions.infer

    def raster(params, image):
        load(params)
        column = cuda.grid(2)[0]
        for row in range(cuda.threadIdx.y, image.shape[0], cuda.blockDim.y):  # as many for all
            x, y = cuda.local.array(2, float32), cuda.local.array(3, float32)
            x[0] = (np.float32(column) + np.float32(0.5)) / np.float32(image.shape[1])
            x[1] = (np.float32(row) + np.float32(0.5)) / np.float32(image.shape[0])
            infer(params, x, y)
            if column < image.shape[1]:
                for k in range(3):
                    image[row, column, k] = y[k]

    height, width = 24, 29
    image = network.target.zeros(height, width, 3)
    functions.kernel(raster, block=(8, 4, 2))  # of which no launch is needed to be allowed
    functions.kernel(raster, block=(8, 8))((4, 1), network.kernel_params(), image)
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    expected = network(np.stack([x.ravel(), y.ravel()], axis=1)).numpy()
    assert_close(image.numpy().reshape(-1, 3), expected, TOLERANCE["float16"])


def test_two_models_and_memory_of_the_user_s_in_one_kernel(cuda_device):
    """The second model reads what the first one gives, after another lane has passed it on."""
    first, second = (create(name, cuda_device).network for name in ("hash", "one_blob"))
    one = first.device_functions(threads_per_block=64)
    two = second.device_functions(threads_per_block=64, shared_offset=one.shared_bytes)
    assert two.shared_bytes > one.shared_bytes
    load_one, infer_one, load_two, infer_two = one.load, one.infer, two.load, two.infer
    n_out = second.n_output_dims

    def chained(params_one, params_two, x, y):
        kept = cuda.shared.array((64, 3), float32)
        load_one(params_one)
        load_two(params_two)
        i, thread = cuda.grid(1), cuda.threadIdx.x
        point, colour = cuda.local.array(2, float32), cuda.local.array(n_out, float32)
        for d in range(2):
            point[d] = x[i, d]
        infer_one(params_one, point, kept[thread])
        cuda.syncthreads()
        infer_two(params_two, kept[63 - thread], colour)
        for k in range(n_out):
            y[i, k] = colour[k]

    x = inputs(first, 128)
    target, y = first.target, first.target.zeros(128, n_out)
    kernel = two.kernel(chained)
    kernel(2, first.kernel_params(), second.kernel_params(), target.from_host(x), y)
    between = first.inference(x).numpy().reshape(2, 64, 3)[:, ::-1].reshape(128, 3)
    assert_close(y.numpy(), second.inference(between).numpy(), TOLERANCE["float16"])


def test_other_weights_can_be_loaded_in_the_same_kernel(cuda_device):
    network = create("hash", cuda_device).network
    functions = network.device_functions(threads_per_block=64)
    load, infer = functions.load, functions.infer

    def both(params, others, x, y):
        i = cuda.grid(1)
        value = cuda.local.array(3, float32)
        load(params)
        infer(params, x[i], value)
        for k in range(3):
            y[i, k] = value[k]
        load(others)
        infer(others, x[i], value)
        for k in range(3):
            y[i, 3 + k] = value[k]

    x, others = inputs(network, 64), 2 * network.params.numpy()
    target, y = network.target, network.target.zeros(64, 6)
    params = network.kernel_params(), network.kernel_params(others)
    functions.kernel(both)(1, *params, target.from_host(x), y)
    expected = [network(x).numpy(), network(x, others).numpy()]
    assert_close(y.numpy(), np.concatenate(expected, axis=1), TOLERANCE["float16"])


def test_a_block_of_another_size_is_an_error(cuda_device):
    functions = create("hash", cuda_device).network.device_functions(threads_per_block=64)
    for block in ((128,), (8, 4), (64, 0), (2, 2, 2, 8)):
        with pytest.raises(ValueError, match=r"block: \(.*\) has not the 64 threads"):
            functions.kernel(lambda params: None, block)


def test_a_block_that_nobody_checked_stops(pytestconfig):
    """As `cuda.jit` launches it."""
    from emulator.ptx.errors import Trap

    network = create("hash", emulated(pytestconfig)).network
    functions, x = network.device_functions(threads_per_block=64), inputs(network, 64)
    kernel = functions.kernel(evaluation(functions, network))
    kernel.block = (32,)
    target, y = network.target, network.target.zeros(64, 3)
    with pytest.raises(Trap):
        kernel(2, network.kernel_params(), target.from_host(x), target.from_host(GARBAGE), y)


@pytest.mark.parametrize("shared_offset", [1, 48])
def test_shared_memory_in_front_is_left_alone(pytestconfig, shared_offset):
    """The emulator complains of every access beyond what the launch asked for."""
    network = create("hash", emulated(pytestconfig)).network
    functions, x = network.device_functions(64, shared_offset=shared_offset), inputs(network, 64)
    base = network.device_functions(64).shared_bytes
    assert functions.shared_bytes == base + -(-shared_offset // 16) * 16
    assert functions.kernel(lambda params: None, shared_bytes=99999).shared_bytes == 99999
    y = evaluated(network, functions, x)
    assert_close(y, network(x).numpy(), TOLERANCE["float16"])


# Parameters


def test_the_kernel_sees_what_training_has_changed(cuda_device):
    """Without being compiled again; and other parameters where they are given."""
    model = create("hash", cuda_device)
    network, x = model.network, inputs(model.network, N)
    functions = network.device_functions()
    kernel = functions.kernel(evaluation(functions, network))
    target, y = network.target, network.target.zeros(N, 3)
    arrays = target.from_host(x), target.from_host(GARBAGE), y

    def run(params=None):
        kernel(3, network.kernel_params(params), *arrays)
        return y.numpy()

    before, n_kernels = run(), None
    for _ in range(2):
        model.trainer.training_step(x, np.ones((N, 3)))
        n_kernels = n_kernels or len(cuda_device._built)
    after = run()
    assert len(cuda_device._built) == n_kernels
    assert np.abs(after - before).max() > 1e-2
    assert_close(after, network(x).numpy(), TOLERANCE["float16"])
    others = 0.5 * network.params.numpy()
    assert_close(run(others), network(x, others).numpy(), TOLERANCE["float16"])


def test_the_average_of_an_optimizer(cuda_device):
    model = create("hash", cuda_device)
    config = model.trainer.config()
    config["optimizer"] = {"otype": "EMA", "decay": 0.5, "nested": config["optimizer"]}
    model = numbanet.create_from_config(2, 3, config, device=cuda_device, precision="float16")
    network, x = model.network, inputs(model.network, N)
    for _ in range(2):
        model.trainer.training_step(x, np.ones((N, 3)))
    y = evaluated(network, network.device_functions(), x, model.trainer.inference_params)
    assert_close(y, model(x).numpy(), TOLERANCE["float16"])
    assert np.abs(y - network(x).numpy()).max() > 1e-3


def test_an_address_stands_for_the_parameters(cuda_device):
    network = create("hash", cuda_device).network
    functions, x = network.device_functions(), inputs(network, N)
    kernel = functions.kernel(evaluation(functions, network))
    target, params = network.target, network.kernel_params()
    arrays = target.from_host(x), target.from_host(GARBAGE)
    for address in (params.address, np.uint64(params.address)):
        y = target.zeros(N, 3)
        kernel(3, address, *arrays, y)
        assert_close(y.numpy(), network(x).numpy(), TOLERANCE["float16"])


# Other arguments of kernels


def test_arguments_are_what_they_are_in_the_kernel(cuda_device):
    functions = create("float32", cuda_device).network.device_functions(threads_per_block=32)

    def write(whole, half, exact, small, numbers, bits, cube, result):
        i = cuda.grid(1)
        if i == 0:
            result[0] = np.float32(whole) + half + np.float32(exact) + np.float32(small)
            result[1] = np.float32(numbers[1, 2])
            result[2] = np.float32(bits[bits.shape[0] - 1])
            result[3] = np.float32(cube[1, 0, 3])
            result[4] = np.float32(cube.shape[0] * 100 + cube.shape[1] * 10 + cube.shape[2])

    arrays = [
        np.arange(6, dtype=np.int32).reshape(2, 3), np.arange(7, dtype=np.uint8),
        np.arange(24, dtype=np.float16).reshape(2, 3, 4),
    ]  # fmt: skip
    arrays = [to_device(array, cuda_device) for array in arrays]
    result = empty((5,), "f4", cuda_device)
    functions.kernel(write)(
        np.int64(2), 2**24, 0.5, np.uint32(7), np.float32(0.25), *arrays, result
    )
    np.testing.assert_array_equal(result.numpy(), [2**24 + 8, 5, 6, 15, 234])


@pytest.mark.parametrize("value", [np.zeros(3), [1, 2], "x", None, 1j])
def test_what_no_kernel_takes(cuda_device, value):
    kernel = create("float32", cuda_device).network.device_functions().kernel(lambda x: None)
    with pytest.raises(TypeError, match=r"argument 0: expected a number, or an array on"):
        kernel(1, value)


@pytest.mark.parametrize(("dtype", "size"), [("f2", 2), (BFLOAT16, 2), ("u1", 1), ("f8", 8)])
def test_arrays_of_other_libraries_have_no_gaps(dtype, size):
    shape = (2, 3)
    for steps, expected in (((3, 1), True), ((4, 1), False), ((1, 2), False), ((6, 2), False)):
        strides = tuple(size * step for step in steps)
        assert is_c_order(Imported(0, shape, strides, dtype, None)) == expected
    assert is_c_order(Imported(0, shape, None, dtype, None))


def test_mistakes_in_a_kernel_are_explained(cuda_device):
    functions = create("hash", cuda_device).network.device_functions()
    infer = functions.infer

    def wrong(params, x):
        infer(params, x.missing, x)

    with pytest.raises(numbanet.DeviceCodeError, match=r"kernel 'wrong' .*attribute 'missing'"):
        functions.kernel(wrong)(1, 1, to_device(GARBAGE, cuda_device))


# What is refused


def test_a_model_on_the_cpu_has_none():
    network = numbanet.create_from_config(2, 1, {}, device="cpu").network
    with pytest.raises(ValueError, match="on the CPU has no device functions"):
        network.device_functions()


@pytest.mark.parametrize("name", ALONE)
def test_fused_where_it_is_not_possible(cuda_device, name):
    network = create(name, cuda_device).network
    with pytest.raises(ValueError, match=r"fused=True: (float32|its network (needs|has biases))"):
        network.device_functions(fused=True)


def test_too_little_shared_memory(pytestconfig):
    network = create("hash", emulated(pytestconfig, max_shared_bytes=9000)).network
    with pytest.raises(ValueError, match=r"9984 bytes of shared memory, .* has 9000"):
        network.device_functions(fused=True)
    assert network.device_functions(64, fused=True).fused


@pytest.mark.parametrize("n", [0, 16, 100, 2048, 64.0, None])
def test_threads_that_are_no_warps(cuda_device, n):
    network = create("hash", cuda_device).network
    with pytest.raises(ValueError, match=r"threads_per_block: .* multiple of 32 up to 1024"):
        network.device_functions(threads_per_block=n)
    with pytest.raises(ValueError, match=r"shared_offset: -1"):
        network.device_functions(shared_offset=-1)


# The code


@pytest.mark.parametrize("name", FUSED)
def test_the_code_is_that_of_a_fused_kernel(name, current_assembler):
    """No float64, no local memory, no calls, no spills."""
    for capability in ((8, 0), (9, 0)):
        device = CompileOnlyDevice(capability)
        network = create(name, device).network
        evaluated(network, network.device_functions(), inputs(network, 1))
        (kernel,) = (each for each in device.kernels if each.name == "evaluate")
        assert not re.findall(UNWANTED, kernel.ptx.text)
        resources = assemble(kernel.ptx, capability).resources
        assert resources.spill_stores == resources.spill_loads == resources.local_bytes == 0


def test_numba_compiles_the_kernel_by_itself(pytestconfig):
    """As `cuda.jit` does, without numbanet's options; run on the emulator."""
    from emulator.ptx import Module

    device = emulated(pytestconfig)
    network = create("hash", device).network
    functions, x = network.device_functions(), inputs(network, N)
    target, y = network.target, network.target.zeros(N, 3)
    arguments = [network.kernel_params(), *map(target.from_host, (x, GARBAGE)), y]
    with compiler.pretend_device(device.compute_capability):
        half, single = (getattr(cuda.types, name) for name in ("float16", "float32"))
        matrix = single[:, ::1]
        signature = cuda.types.void(half[::1], matrix, single[::1], matrix)
        evaluate, options = evaluation(functions, network), {"abi": "numba", "output": "ptx"}
        text, _ = cuda.compile(evaluate, signature, device=False, cc=(9, 0), **options)
    (name,) = re.findall(r"\.entry\s+([\w$]+)", text)
    scalars = [scalar for each in arguments for scalar in parameter(each, "", device)[1]]
    shared_bytes, block = functions.shared_bytes, functions.threads_per_block
    Module(text, device.memory).launch(name, 3, block, [v for _, v in scalars], shared_bytes)
    assert_close(y.numpy(), network(x).numpy(), TOLERANCE["float16"])


def test_numba_launches_the_kernel_by_itself(gpu):
    network = create("hash", gpu).network
    functions, x = network.device_functions(), inputs(network, N)
    target, y = network.target, network.target.zeros(N, 3)
    kernel = cuda.jit(evaluation(functions, network))
    configured = kernel[3, functions.threads_per_block, 0, functions.shared_bytes]
    configured(network.kernel_params(), target.from_host(x), target.from_host(GARBAGE), y)
    cuda.synchronize()
    assert_close(y.numpy(), network(x).numpy(), TOLERANCE["float16"])


def test_numba_computes_with_indices_as_we_do(monkeypatch):
    taught = []
    monkeypatch.setattr(compiler, "teach", taught.append)
    create("odd", CompileOnlyDevice((9, 0), assembles=False)).network.device_functions()
    assert [each.__name__ for each in taught] == ["numba.cuda.core.rewrites"]
