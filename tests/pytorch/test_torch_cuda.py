"""Modules on the CUDA target: on the emulator, or with --device cuda on a GPU's tensors."""

from unittest import mock

import models
import naive
import numpy as np
import pytest
from laws import assert_close
from models import HASH, MODELS, mlp

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")
pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

import data_parallel  # noqa: E402
from emulated_tensors import EmulatedTensorDevice  # noqa: E402

import numbanet.torch as tcnn  # noqa: E402
from numbanet.composition import Composition  # noqa: E402
from numbanet.cuda.target import CudaTarget  # noqa: E402
from numbanet.quantization import quantize  # noqa: E402
from numbanet.torch import descriptions, direct, evaluator  # noqa: E402

# Largest error of outputs and gradients, relative to their largest magnitude.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
N = 65


@pytest.fixture(scope="module")
def emulator():
    return EmulatedTensorDevice()


@pytest.fixture
def where(pytestconfig, request, monkeypatch):
    """The device of the tensors. The emulator is behind those of the CPU."""
    if pytestconfig.getoption("device") == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA build of PyTorch, and a GPU")
        yield torch.device("cuda", 0)
        return
    emulator = request.getfixturevalue("emulator")

    def emulated(device, precision):
        return CudaTarget(emulator, precision)

    monkeypatch.setattr(evaluator, "target_of", emulated)
    tcnn.free_temporary_memory()  # evaluators of the CPU among it
    yield torch.device("cpu")
    tcnn.free_temporary_memory()


def make(name, where, dtype):
    n_input_dims, n_output_dims, config = MODELS[name]
    twin = naive.Model(*MODELS[name])
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, config["encoding"], config["network"],
        dtype=dtype, device=where,
    )  # fmt: skip
    with torch.no_grad():
        module.params.copy_(torch.from_numpy(models.lively_params(twin)))
    return module, twin


def on_host(tensor):
    return tensor.detach().float().cpu().numpy()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["hash", "one_blob"])
def test_values_and_gradients(where, name, dtype):
    module, twin = make(name, where, dtype)
    params = on_host(module.params)
    x = models.inputs_of(twin, N, 0, params)
    dl_dy = np.random.default_rng(1).normal(size=(N, module.n_output_dims)).astype(np.float32)
    inputs = torch.tensor(x, device=where, requires_grad=True)
    y = module(inputs)
    assert y.dtype == dtype
    assert y.device.type == where.type
    assert_close(on_host(y), twin.inference(x, params), TOLERANCE[dtype])
    y.backward(torch.tensor(dl_dy, device=where).to(dtype))
    dl_dx, dl_dparams = twin.backward(x, params, dl_dy.astype(np.float64))
    if dtype == torch.float32:  # in halves, a neuron may be on the other side of its kink
        assert_close(on_host(inputs.grad), dl_dx, 10 * TOLERANCE[dtype])
        assert_close(on_host(module.params.grad), dl_dparams, 10 * TOLERANCE[dtype])
    else:
        for found, expected in ((inputs.grad, dl_dx), (module.params.grad, dl_dparams)):
            assert correlation(on_host(found), expected) > 0.98
    assert module.params.grad.dtype == torch.float32


def correlation(a, b):
    a, b = np.float64(a).ravel(), np.float64(b).ravel()
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_second_derivatives(where):
    module, twin = make("smooth", where, torch.float32)
    params = on_host(module.params)
    x = models.inputs_of(twin, N, 0, params)
    rng = np.random.default_rng(1)
    dl_dy, direction = rng.normal(size=(N, 2)), rng.normal(size=x.shape)
    inputs = torch.tensor(x, device=where, requires_grad=True)
    gradient = torch.tensor(np.float32(dl_dy), device=where, requires_grad=True)
    (dl_dx,) = torch.autograd.grad(module(inputs), inputs, gradient, create_graph=True)
    along = torch.tensor(np.float32(direction), device=where)
    found = torch.autograd.grad(dl_dx, (gradient, inputs, module.params), along)
    expected = twin.double_backward(x, params, dl_dy, direction)
    for value, exact in zip(found, expected, strict=True):
        assert_close(on_host(value), exact, 1e-3)


def test_encodings_and_their_second_derivatives(where):
    encoding = tcnn.Encoding(2, HASH, dtype=torch.float32, device=where)
    other = tcnn.Encoding(2, HASH, dtype=torch.float32, device=where)
    twin = naive.encoding(HASH, 2)
    table = np.random.default_rng(0).normal(size=twin.n_params).astype(np.float32)
    with torch.no_grad():
        encoding.params.copy_(torch.from_numpy(table))
    x = torch.rand(N, 2, generator=torch.Generator().manual_seed(3)).to(where).requires_grad_()
    y = encoding(x)
    assert_close(on_host(y), twin.forward(on_host(x).astype(np.float64), table), 1e-4)
    (dl_dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    dl_dx.square().sum().backward()
    exact = on_host(x).astype(np.float64), table, np.ones((N, 8))
    _, _, wanted = twin.double_backward(*exact, 2 * on_host(dl_dx).astype(np.float64))
    assert_close(on_host(encoding.params.grad), wanted, 1e-3)
    assert other.params.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_loss_in_one_pass(where, dtype):
    module, _ = make("hash", where, dtype)
    x, targets = (torch.from_numpy(each).to(where) for each in models.batch_of("hash", N))
    value = module.loss(x, targets, "L2")
    y = module(x).float()
    expected = (y - targets).square().mean()
    assert value.item() == pytest.approx(expected.item(), rel=TOLERANCE[dtype])
    value.backward()
    found, module.params.grad = module.params.grad, None
    expected.backward()
    assert correlation(on_host(found), on_host(module.params.grad)) > 0.98
    assert value.dtype == torch.float32


def test_empty_batches(where):
    module, _ = make("hash", where, torch.float32)
    x = torch.zeros(0, 2, device=where, requires_grad=True)
    y = module(x)
    assert y.shape == (0, 3)
    y.sum().backward()
    assert x.grad.shape == (0, 2)
    assert module.params.grad.abs().max() == 0


def test_parameters_at_any_address(where):
    """Kernels read them in wide accesses, for which a view may begin at the wrong place."""
    module, _ = make("hash", where, torch.float32)
    x = torch.rand(N, 2, generator=torch.Generator().manual_seed(3)).to(where)
    expected = module(x)
    n = module.params.numel()
    shifted = torch.zeros(n + 1, device=where)
    shifted[1:] = module.params.detach()
    module.params = torch.nn.Parameter(shifted[1:])
    torch.testing.assert_close(module(x), expected)


def test_parameters_are_read_as_they_are_at_each_call(where):
    """Also what PyTorch counts as no change, being written through `.data`, and halves."""
    module, _ = make("hash", where, torch.float16)
    x = torch.rand(N, 2, generator=torch.Generator().manual_seed(3)).to(where)
    with torch.no_grad():
        before = module(x)
        module.params.data.mul_(-2)
        after = module(x)
        assert not torch.allclose(after, before)
    module.params = torch.nn.Parameter(module.params.detach().half())
    y = module(x)
    torch.testing.assert_close(y, after, rtol=0, atol=0)
    y.sum().backward()
    assert module.params.grad.dtype == torch.float16
    assert module.params.grad.abs().max() > 0


def launches_of(call, device):
    """What a call returns, and the names of the kernels that it launched."""
    launch, names = device.launch, []

    def recorded(kernel, *arguments):
        names.append(kernel.name)
        launch(kernel, *arguments)

    with mock.patch.object(device, "launch", recorded):
        return call(), names


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_calls_without_gradients_are_one_kernel(where, dtype):
    """That rounds the parameters itself, to the same outputs as where they are rounded before."""
    module, _ = make("hash", where, dtype)
    native = module.native_tcnn_module
    device = evaluator.evaluator_for(native.description, where, native.precision).target.device
    x = torch.rand(N, 2, generator=torch.Generator().manual_seed(3)).to(where)
    for _ in range(3):
        expected = module(x).detach()
        with torch.no_grad():
            y, launches = launches_of(lambda: module(x), device)
            torch.testing.assert_close(y, expected, rtol=0, atol=0)
            assert [name.startswith("fused_inference") for name in launches] == [True]
            module.params.data.mul_(0.9)
    with torch.inference_mode():
        y = module(x)
        torch.testing.assert_close(module(x.double()), y, rtol=0, atol=0)
        torch.testing.assert_close(module(x.T.contiguous().T), y, rtol=0, atol=0)
        assert module(x[:0]).shape == (0, 3)
    with torch.no_grad():
        for n in range(direct.MOST_SIZES + 2):  # more than are remembered
            assert module(x[: n % N]).shape == (n % N, 3)
        shifted = torch.zeros(module.params.numel() + 1, device=where)
        shifted[1:] = module.params
        module.params = torch.nn.Parameter(shifted[1:])
        torch.testing.assert_close(module(x), y, rtol=0, atol=0)


def test_steps_that_come_again_are_queued_as_graphs(where, request):
    """And read the inputs and the parameters of their time, and write where they are told to."""
    module, twin = make("hash", where, torch.float32)
    x, targets = (torch.from_numpy(each).to(where) for each in models.batch_of("hash", N))
    for _ in range(5):
        with torch.no_grad():
            x.mul_(0.9)
            module.params.mul_(0.95)
        module.params.grad = None
        loss = module.loss(x, targets, "L2")
        loss.backward()
        params, inputs = on_host(module.params), on_host(x).astype(np.float64)
        y = twin.inference(inputs, params)
        error = y - on_host(targets)
        assert loss.item() == pytest.approx(np.mean(error**2), rel=1e-3)
        _, expected = twin.backward(inputs, params, 2 * error / error.size)
        assert_close(on_host(module.params.grad), expected, 1e-3)
        of_loss, module.params.grad = module.params.grad, None
        (module(x) - targets).square().mean().backward()
        assert_close(on_host(module.params.grad), on_host(of_loss), 1e-3)
    if where.type == "cpu":
        assert request.getfixturevalue("emulator").replayed > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_tables_in_few_bits(where, dtype):
    """Values of a plain module whose parameters were quantized, at each call."""
    plain, _ = make("hash", where, dtype)
    n_input_dims, n_output_dims, config = MODELS["hash"]
    encoding = {**config["encoding"], "compression": "Int8"}
    module = tcnn.NetworkWithInputEncoding(
        n_input_dims, n_output_dims, encoding, config["network"], dtype=dtype, device=where
    )
    parts = descriptions.components(module.native_tcnn_module.description)
    quantized = Composition.of(*parts).quantized
    x = torch.from_numpy(models.batch_of("hash", N)[0]).to(where)
    values = on_host(plain.params)
    for k in range(3):
        given = values * np.float32(0.9**k)
        for each, own in ((module, given), (plain, quantize(given, quantized))):
            with torch.no_grad():
                each.params.copy_(torch.from_numpy(own))
            each.params.grad = None
            each(x).square().mean().backward()
        assert_close(on_host(module(x)), on_host(plain(x)), TOLERANCE[dtype])
        assert_close(on_host(module.params.grad), on_host(plain.params.grad), 2 * TOLERANCE[dtype])


# Only where there is a GPU


@pytest.fixture
def gpu(where):
    if where.type != "cuda":
        pytest.skip("needs an NVIDIA GPU, a CUDA build of PyTorch, and --device cuda")
    return where


def small(**options):
    return tcnn.NetworkWithInputEncoding(2, 3, HASH, mlp("FullyFusedMLP", 16, 2), **options)


def test_defaults_on_a_gpu(gpu):
    module = small()
    assert module.params.is_cuda
    assert module.params.dtype == torch.float32
    assert module.dtype == torch.float16
    assert module.loss_scale == 128
    assert module(torch.rand(5, 2, device=gpu)).dtype == torch.float16


def test_inputs_of_the_host_are_moved(gpu):
    with pytest.warns(UserWarning, match="inputs on cpu are moved to cuda:0"):
        assert small()(torch.rand(5, 2)).is_cuda


def test_one_module_for_each_device(gpu):
    module = small(dtype=torch.float32)
    x = torch.rand(300, 2)
    on_gpu = module(x.to(gpu))
    on_cpu = module.cpu()(x)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-3, atol=1e-5)


@pytest.fixture
def two_gpus(gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")


def test_two_processes_train_as_one_through_nccl(two_gpus, tmp_path):
    data_parallel.check(tmp_path, "nccl")


def test_the_second_gpu(two_gpus):
    x = torch.rand(300, 2)
    first, second = small(device="cuda:0"), small(device="cuda:1")
    y = second(x.to("cuda:1"))
    assert y.device == torch.device("cuda:1")
    torch.testing.assert_close(y.cpu(), first(x.to("cuda:0")).cpu())
    y.sum().backward()
    assert second.params.grad.device == torch.device("cuda:1")
    with torch.cuda.device(1):
        assert small().params.device == torch.device("cuda:1")


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node:UserWarning")  # params are older
def test_the_current_stream_is_used(gpu):
    """Inputs that are written late on a side stream are waited for, and results with them."""
    module = small(dtype=torch.float32)
    x = torch.rand(1 << 18, 2, device=gpu)
    expected = module(x)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        late = torch.zeros_like(x)
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        y = module(late)
        (2 * y).sum().backward()
        doubled = 2 * y
    torch.cuda.current_stream().wait_stream(side)
    torch.testing.assert_close(doubled, 2 * expected)
    assert module.params.grad.abs().max() > 0
    torch.testing.assert_close(module(x), expected)  # and back on the first stream


def test_autocast_on_a_gpu(gpu):
    module = small()
    with torch.autocast("cuda", dtype=torch.float16):
        y = module(torch.rand(5, 2, device=gpu).half())
    assert y.dtype == torch.float16


def test_training_learns_on_a_gpu(gpu):
    module = small()
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    x = torch.rand(1 << 12, 2, device=gpu)
    targets = torch.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1]], dim=1)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = (module(x).float() - targets).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_several_streams_share_nothing(gpu):
    """Calls of one module that are under way at once give what they give one after the other."""
    module = tcnn.NetworkWithInputEncoding(*MODELS["one_blob"][:2], *parts_of("one_blob"))
    inputs = [torch.rand(1 << 16, 1, device=gpu) for _ in range(2)]
    with torch.no_grad():
        expected = [module(x) for x in inputs]
        torch.cuda.synchronize()
        streams = [torch.cuda.Stream() for _ in inputs]
        for _ in range(5):
            found = []
            for x, stream in zip(inputs, streams, strict=True):
                with torch.cuda.stream(stream):
                    found.append(module(x))
            torch.cuda.synchronize()
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def parts_of(name):
    config = MODELS[name][2]
    return config["encoding"], config["network"]


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node:UserWarning")  # params are older
@pytest.mark.parametrize("name", ["hash", "one_blob"])
@pytest.mark.parametrize("in_one_pass", [False, True])
def test_a_training_step_is_captured_in_a_graph(gpu, name, in_one_pass):
    """Replays read the inputs and the parameters of their time, and eager calls what they made."""
    n_inputs, n_outputs, _ = MODELS[name]
    module, twin = (
        tcnn.NetworkWithInputEncoding(n_inputs, n_outputs, *parts_of(name)) for _ in range(2)
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    x, targets = torch.rand(300, n_inputs, device=gpu), torch.rand(300, n_outputs, device=gpu)

    def loss_of(model):
        if in_one_pass:
            return model.loss(x, targets, "L2")
        return (model(x).float() - targets).square().mean()

    def step():
        optimizer.zero_grad()
        loss = loss_of(module)
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()
    for _ in range(3):
        x.copy_(torch.rand_like(x))
        with torch.no_grad():
            twin.params.copy_(module.params)
        twin.params.grad = None
        expected = loss_of(twin)
        expected.backward()
        graph.replay()
        torch.testing.assert_close(value, expected, rtol=1e-2, atol=1e-5)
        change = (twin.params - module.params).detach() / 0.5
        assert correlation(on_host(change), on_host(twin.params.grad)) > 0.98
        with torch.no_grad():
            after, before = module(x), twin(x)
            twin.params.copy_(module.params)
            torch.testing.assert_close(after, twin(x))
            assert not torch.equal(after, before)


@pytest.fixture
def deterministic():
    """Sets PyTorch's own switch, and puts it back."""
    yield torch.use_deterministic_algorithms
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_deterministic_algorithms(where, dtype, deterministic, emulator, monkeypatch):
    """Gradients are the same bits, whatever the order of blocks and atomics."""
    module, twin = make("hash", where, dtype)
    x = torch.tensor(models.inputs_of(twin, 300, 0, on_host(module.params)), device=where)

    def gradients(seed):
        monkeypatch.setattr(emulator, "order", np.random.default_rng(seed))
        module.zero_grad()
        inputs = x.clone().requires_grad_()
        module(inputs).square().mean().backward()
        return on_host(torch.cat([module.params.grad, inputs.grad.flatten()])).view(np.uint32)

    deterministic(True)
    first = gradients(0)
    assert np.array_equal(gradients(1), first)
    deterministic(False)
    if where.type == "cpu":  # the emulator's, where the order is drawn
        assert not np.array_equal(gradients(0), gradients(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_derivatives_by_the_inputs(where, dtype):
    """In float32, whatever the precision of the module; what comes again is a graph."""
    module, twin = make("smooth", where, dtype)
    params = module.params.detach().cpu().numpy()
    x = models.inputs_of(twin, N, params=params)
    for _ in range(3):
        module.params.grad = None
        found = module.derivatives(torch.from_numpy(x).to(where), order=2, wanted="diagonal")
        found.diagonal.sum().backward()
    values, jacobian, hessian = twin.derivatives(x, params)
    assert_close(on_host(found.values), values, 1e-4)
    assert_close(on_host(found.jacobian), jacobian, 1e-4)
    assert_close(on_host(found.diagonal), np.diagonal(hessian, axis1=-2, axis2=-1), 5e-4)
    direction = np.random.default_rng(0).normal(size=params.shape)

    def total(step):
        return np.trace(twin.derivatives(x, params + step * direction)[2], axis1=-2, axis2=-1).sum()

    expected = (total(1e-4) - total(-1e-4)) / 2e-4
    assert on_host(module.params.grad) @ direction == pytest.approx(expected, rel=1e-2)
