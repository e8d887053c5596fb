"""The driver: against a fake one everywhere, against the real one where there is a GPU."""

import gc
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from numbanet.cuda import errors
from numbanet.cuda.driver.arguments import pack
from numbanet.cuda.driver.device import CudaDevice, LoadedKernel, why_not
from numbanet.cuda.driver.spare_memory import LARGEST, MOST
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory.arrays import Memory
from numbanet.cuda.toolchain.assembler import assemble
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.cuda.toolchain.machine_code import PTX
from numbanet.storage.views import float_vector


@pytest.fixture
def device(fake_driver):
    return CudaDevice()


def launch(device, grid=(2, 1, 1), shared_bytes=0, kernel=None):
    arguments = pack(("uint64", "int32"), (4096, 5))
    device.launch(kernel or LoadedKernel("k", "function"), grid, 128, shared_bytes, arguments)
    return arguments


def test_properties(device):
    assert device.name == "Fake GPU"
    assert device.compute_capability == (9, 0)
    assert device.n_multiprocessors == 132
    assert device.max_shared_bytes == 227 * 1024
    assert device.dlpack_device == (2, 0)


def test_launch_passes_the_packed_arguments(device, fake_driver):
    arguments = launch(device, (3, 2))
    (call,) = fake_driver.named("cuLaunchKernel")
    assert call[1:] == ("function", 3, 2, 1, 128, 1, 1, 0, 1, arguments.address, 0)


def test_threads_do_not_change_the_arguments_of_each_other():
    launched = []

    def launch(kernel, grid, block, shared_bytes, arguments):
        if threading.current_thread() is threading.main_thread():
            other.start()
            other.join(0.1)  # it waits for its turn
        launched.append(arguments[0])

    device = SimpleNamespace(
        lock=threading.RLock(),
        launch=launch,
        build=lambda *arguments: LoadedKernel("k", "function"),
    )
    kernel = Kernel(device, None, argument_types=("int32",))
    other = threading.Thread(target=kernel, args=(1, 2))
    kernel(1, 1)
    other.join()
    assert launched == [1, 2]


@pytest.mark.parametrize("grid", [0, (0, 3), (3, 0, 1)])
def test_an_empty_grid_launches_nothing(device, fake_driver, grid):
    launch(device, grid)
    assert not fake_driver.named("cuLaunchKernel")


def test_shared_memory_is_allowed_once(device, fake_driver):
    kernel = LoadedKernel("k", "function")
    for n_bytes in (48 * 1024, 100_000, 90_000, 100_000):
        launch(device, shared_bytes=n_bytes, kernel=kernel)
    (call,) = fake_driver.named("cuFuncSetAttribute")
    assert call[1] == "function"
    assert call[3] == 100_000
    with pytest.raises(errors.LaunchError, match=r"250000 bytes.*232448"):
        launch(device, shared_bytes=250_000, kernel=kernel)


def test_a_refused_launch_says_what_was_launched(device, fake_driver):
    fake_driver.failures["cuLaunchKernel"] = ["INVALID_VALUE"]
    with pytest.raises(errors.LaunchError, match=r"launching k: grid \(2, 1, 1\).*INVALID_VALUE"):
        launch(device)
    launch(device)


def test_the_context_of_the_thread_is_put_back(device, fake_driver):
    fake_driver.answers["cuCtxGetCurrent"] = (5,)
    fake_driver.failures["cuLaunchKernel"] = ["INVALID_VALUE"]
    with pytest.raises(errors.LaunchError):
        launch(device)
    launch(device)
    device.free(device.allocate(8))
    entered = fake_driver.named("cuCtxPushCurrent", "cuCtxPopCurrent")
    assert [call[0] for call in entered[::2]] == ["cuCtxPushCurrent"] * (len(entered) // 2) != []
    assert [call[0] for call in entered[1::2]] == ["cuCtxPopCurrent"] * (len(entered) // 2)
    fake_driver.calls.clear()
    fake_driver.answers["cuCtxGetCurrent"] = (77,)  # where it is current, nothing is to do
    launch(device)
    assert not fake_driver.named("cuCtxPushCurrent", "cuCtxPopCurrent", "cuCtxSetCurrent")


def test_the_first_context_stays_where_a_thread_has_none(device, fake_driver):
    fake_driver.calls.clear()
    launch(device)
    assert fake_driver.named("cuCtxSetCurrent") == [("cuCtxSetCurrent", 77)]
    assert not fake_driver.named("cuCtxPushCurrent", "cuCtxPopCurrent")


def test_other_contexts_do_not_stay(fake_driver):
    fake_driver.answers["cuDeviceGetCount"] = (2,)
    device = CudaDevice(1)
    fake_driver.calls.clear()
    device.zero(4096, 8)
    assert len(fake_driver.named("cuCtxPushCurrent", "cuCtxPopCurrent")) == 2
    assert not fake_driver.named("cuCtxSetCurrent")


def test_memory_that_was_kept_is_tried_before_giving_up(device, fake_driver):
    fake_driver.failures["cuMemAllocFromPoolAsync"] = ["OUT_OF_MEMORY"]
    assert device.allocate(2**20) == 4096
    assert fake_driver.named("cuMemPoolTrimTo")


def test_out_of_memory_says_how_much_and_what_to_do(device, fake_driver):
    fake_driver.failures["cuMemAllocFromPoolAsync"] = ["OUT_OF_MEMORY"] * 2
    with pytest.raises(errors.DeviceMemoryError, match=r"2.0 MiB.* 1 MiB of 1,024 MiB.*batch"):
        device.allocate(2**21)
    assert device.allocate(100) == 4096


def test_without_memory_pools(fake_driver):
    fake_driver.attributes["MEMORY_POOLS_SUPPORTED"] = 0
    fake_driver.answers["cuMemAlloc"] = (8192,)
    device = CudaDevice()
    assert device.allocate(LARGEST + 1) == 8192
    device.free(8192)
    assert fake_driver.named("cuMemFree") == [("cuMemFree", 8192)]


def test_memory_is_freed_with_its_last_reference(device, fake_driver):
    memory = Memory(device, LARGEST + 1)
    assert not fake_driver.named("cuMemFreeAsync")
    del memory
    gc.collect()
    assert fake_driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", 4096, 1)]


def allocate(device, fake_driver, address, n_bytes):
    """Where the driver would give this address."""
    fake_driver.answers["cuMemAllocFromPoolAsync"] = (address,)
    return device.allocate(n_bytes)


def test_small_pieces_are_used_anew(device, fake_driver):
    first = allocate(device, fake_driver, 4096, 1000)
    allocate(device, fake_driver, 8192, 1025)
    device.free(first)
    assert allocate(device, fake_driver, 12288, 513) == first  # both become 1024 bytes
    assert allocate(device, fake_driver, 16384, 1024) == 16384
    asked = [call[1] for call in fake_driver.named("cuMemAllocFromPoolAsync")]
    assert asked == [1024, 2048, 1024]
    assert not fake_driver.named("cuMemFreeAsync")


@pytest.mark.parametrize(
    ("n_bytes", "size"), [(1, 256), (256, 256), (257, 512), (LARGEST, LARGEST)]
)
def test_sizes_of_small_pieces(device, fake_driver, n_bytes, size):
    device.allocate(n_bytes)
    assert fake_driver.named("cuMemAllocFromPoolAsync")[0][1] == size


def test_few_small_pieces_are_kept(device, fake_driver):
    pieces = [4096 * i for i in range(1, MOST + 3)]
    for piece in pieces:
        allocate(device, fake_driver, piece, 100)
    for piece in pieces:
        device.free(piece)
    assert [call[1] for call in fake_driver.named("cuMemFreeAsync")] == pieces[MOST:]
    device.trim()
    assert sorted(call[1] for call in fake_driver.named("cuMemFreeAsync")) == pieces


def test_pieces_are_not_used_anew_while_a_graph_is_captured(device, fake_driver):
    piece, found = device.allocate(100), []

    def queue():
        device.free(piece)
        found.append(allocate(device, fake_driver, 8192, 100))

    device.capture(queue)
    assert found == [8192]
    assert allocate(device, fake_driver, 12288, 100) == piece


def test_small_pieces_make_room_for_large_ones(device, fake_driver):
    device.free(device.allocate(100))
    fake_driver.failures["cuMemAllocFromPoolAsync"] = ["OUT_OF_MEMORY"]
    device.allocate(2**30)
    assert fake_driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", 4096, 1)]


def test_no_bytes_need_no_memory(device, fake_driver):
    memory = Memory(device, 0)
    device.zero(memory.address, 0)
    device.copy(0, 0, 0)
    device.copy_to_device(0, np.empty(0))
    del memory
    assert not fake_driver.named("cuMemAllocFromPoolAsync", "cuMemFreeAsync", "cuMemsetD8Async")


def test_freeing_never_raises(device, fake_driver):
    fake_driver.failures["cuMemFreeAsync"] = ["ILLEGAL_ADDRESS"]
    device.free(4096)


def test_streams_wait_for_each_other(device, fake_driver):
    device.order(1, 0)  # two names of the default stream
    assert not fake_driver.named("cuEventRecord")
    device.stream = 5
    assert device.stream == 5
    names = "cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy"
    recorded, waited, _ = fake_driver.named(*names)
    assert recorded[1:] == ("event", 1)
    assert waited[1:] == (5, "event", 0)


def test_branches_of_a_graph(device, fake_driver):
    """Functions queue on streams of their own, which begin and end with the one of the capture."""
    fake_driver.answers |= {"cuStreamEndCapture": ("graph",), "cuGraphInstantiate": ("graph",)}
    numbers, streams = iter(range(7, 20)), []
    success = fake_driver.CUresult.CUDA_SUCCESS
    fake_driver.cuStreamCreate = lambda flags: (success, next(numbers))

    def note():
        streams.append(int(device.stream))

    def branch():
        device.in_parallel(note, note)
        note()

    device.in_parallel(note, note)
    assert streams == [1, 1]
    assert not fake_driver.named("cuEventRecord")
    device.capture(lambda: device.in_parallel(branch, note))
    main, side, after, other = streams[2:]
    assert main == after == 7
    assert len({main, side, other}) == 3
    ordered = [call[1:] for call in fake_driver.named("cuStreamWaitEvent")]
    assert [stream for stream, *_ in ordered] == [other, side, 7, 7]
    assert device.stream == 1


def test_other_threads_stay_on_the_common_stream_while_one_captures(device, fake_driver):
    fake_driver.answers |= {"cuStreamEndCapture": ("graph",), "cuGraphInstantiate": ("graph",)}
    fake_driver.cuStreamCreate = lambda flags: (fake_driver.CUresult.CUDA_SUCCESS, 7)

    def work():
        device.zero(4096, 8)
        device.free(2**30)

    def queue():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert fake_driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", 2**30, 1)]
        work()
        assert len(fake_driver.named("cuMemFreeAsync")) == 1

    device.capture(queue)
    assert [call[-1] for call in fake_driver.named("cuMemsetD8Async")] == [1, 7]
    assert fake_driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", 2**30, 1)] * 2


@pytest.mark.parametrize("code", [None, "STREAM_CAPTURE_INVALIDATED"])
def test_a_capture_that_fails_leaves_nothing(device, fake_driver, code):
    fake_driver.answers |= {"cuStreamCreate": (7,), "cuStreamEndCapture": ("graph",)}
    fake_driver.failures["cuStreamEndCapture"] = [] if code is None else [code]

    def queue():
        device.free(2**30)
        raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        device.capture(queue)
    assert fake_driver.named("cuStreamEndCapture", "cuStreamDestroy", "cuGraphInstantiate") == [
        ("cuStreamEndCapture", 7), ("cuStreamDestroy", 7)
    ]  # fmt: skip
    assert fake_driver.named("cuGraphDestroy") == ([] if code else [("cuGraphDestroy", "graph")])
    assert fake_driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", 2**30, 1)]
    assert device.stream == 1


def test_a_failed_kernel_is_told_at_the_next_synchronisation(device, fake_driver):
    fake_driver.failures["cuStreamSynchronize"] = ["ILLEGAL_ADDRESS"]
    with pytest.raises(errors.LaunchError, match=r"ILLEGAL_ADDRESS.*start the process anew"):
        device.synchronize()


@pytest.mark.parametrize("ordinal", [1, -1])
def test_a_gpu_that_is_not_there(fake_driver, ordinal):
    with pytest.raises(errors.NoSuchDeviceError, match=f"no cuda:{ordinal}.*1 GPU, cuda:0"):
        CudaDevice(ordinal)


def test_a_gpu_that_is_too_old(fake_driver):
    fake_driver.attributes["COMPUTE_CAPABILITY_MAJOR"] = 6
    with pytest.raises(errors.DeviceTooOldError, match=r"6\.0.*7\.5"):
        CudaDevice()
    assert "6.0" in why_not()


def test_a_driver_that_is_too_old(fake_driver, monkeypatch):
    monkeypatch.setattr("numbanet.cuda.toolchain.toolkit.bindings_version", lambda: (13, 0))
    fake_driver.answers["cuDriverGetVersion"] = (12040,)
    with pytest.raises(
        errors.DriverTooOldError, match=r'12\.4.*13.*pip install "numbanet\[cu12\]"'
    ):
        CudaDevice()


def test_a_driver_without_gpu(fake_driver):
    fake_driver.failures["cuInit"] = ["NO_DEVICE"]
    with pytest.raises(errors.NoDriverError, match='device="cpu"'):
        CudaDevice()
    assert why_not() is None  # the next start succeeds


def test_ptx_that_is_too_new_for_the_driver(device, fake_driver):
    fake_driver.failures["cuModuleLoadData"] = ["UNSUPPORTED_PTX_VERSION"]
    with pytest.raises(errors.DriverTooOldError, match=r"loading k.*update"):
        device.load(PTX("text", "k"))


def test_arguments_are_checked():
    arguments = pack(("uint64", "int32", "float32"), (2**63, -3, 0.1))
    arguments[1] = 7
    assert [arguments[i] for i in range(3)] == [2**63, 7, np.float32(0.1)]
    with pytest.raises(OverflowError, match="int32"):
        arguments[1] = 2**31
    with pytest.raises(TypeError, match="2 arguments for a kernel that takes 1"):
        pack(("int32",), (1, 2))
    arguments.assign((np.uint64(5), np.int32(-4), 1e39))
    assert [arguments[i] for i in range(3)] == [5, -4, np.inf]
    with pytest.raises(OverflowError, match="argument 0 is -1, which uint64"):
        arguments.assign((-1, 2, 3.0))
    with pytest.raises(TypeError):
        arguments.assign((1.5, 2, 3.0))
    with pytest.raises(TypeError, match="2 arguments for a kernel that takes 3"):
        arguments.assign((1, 2))


# On a GPU


def scale():
    from numba import cuda

    def scale(px, n, factor):
        x = float_vector(px, n)
        i = np.uint32(cuda.grid(1))
        if i < np.uint32(n):
            x[i] *= factor

    return scale


def reverse_in_shared_memory():
    from numba import cuda

    def reverse(px, n):
        x = float_vector(px, n)
        part = cuda.shared.array(0, np.float32)
        for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
            part[i] = x[i]
        cuda.syncthreads()
        for i in range(cuda.threadIdx.x, n, cuda.blockDim.x):
            x[i] = part[n - 1 - i]

    return reverse


def on_device(gpu, host):
    memory = Memory(gpu, host.nbytes)
    gpu.copy_to_device(memory.address, host)
    return memory


@pytest.mark.parametrize("form", ["cubin", "PTX"])
def test_a_kernel_runs(gpu, form):
    types = "uint64", "int32", "float32"
    code = compile_ptx(scale(), types, gpu.compute_capability, block=128)
    kernel = gpu.load(assemble(code, gpu.compute_capability) if form == "cubin" else code)
    host = np.arange(1000, dtype=np.float32)
    memory = on_device(gpu, host)
    arguments = pack(types, (memory.address, 1000, 3))
    gpu.launch(kernel, 8, 128, 0, arguments)
    arguments[2] = 0.5
    gpu.launch(kernel, (8,), (128,), 0, arguments)
    result = np.empty_like(host)
    gpu.copy_to_host(result, memory.address)
    np.testing.assert_array_equal(result, 1.5 * host)


def test_much_shared_memory(gpu):
    types = "uint64", "int32"
    code = compile_ptx(reverse_in_shared_memory(), types, gpu.compute_capability, block=256)
    kernel = gpu.load(assemble(code, gpu.compute_capability))
    n = gpu.max_shared_bytes // 4
    host = np.arange(n, dtype=np.float32)
    memory = on_device(gpu, host)
    gpu.launch(kernel, 1, 256, 4 * n, pack(types, (memory.address, n)))
    result = np.empty_like(host)
    gpu.copy_to_host(result, memory.address)
    np.testing.assert_array_equal(result, host[::-1])


def test_zero_and_copy(gpu):
    host = np.arange(1000, dtype=np.float32)
    first, second = on_device(gpu, host), on_device(gpu, host)
    gpu.zero(first.address, 2000)
    gpu.copy(second.address, first.address, 3000)
    result = np.empty_like(host)
    gpu.copy_to_host(result, second.address)
    np.testing.assert_array_equal(result, np.where(np.arange(1000) < 500, 0, host))
    assert gpu.ordinal_of(first.address) == gpu.ordinal
    assert gpu.ordinal_of(host.ctypes.data) is None


def test_the_gpu_survives_too_large_a_request(gpu):
    with pytest.raises(errors.DeviceMemoryError, match="MiB"):
        gpu.allocate(1 << 50)  # beyond all addresses, so that no other process lacks memory
    assert Memory(gpu, 1000).address % 256 == 0


def test_a_block_that_is_too_large(gpu):
    types = "uint64", "int32", "float32"
    kernel = gpu.load(compile_ptx(scale(), types, gpu.compute_capability))
    with pytest.raises(errors.LaunchError, match="launching scale"):
        gpu.launch(kernel, 1, 2048, 0, pack(types, (0, 0, 1)))
    gpu.synchronize()


def test_a_wait_that_lasts_too_long_is_given_up(device, fake_driver):
    def overdue():
        raise TimeoutError("who waits")

    device.wait_at_most(0.005, overdue)
    device.synchronize()
    fake_driver.failures["cuStreamQuery"] = ["NOT_READY"] * 3
    device.synchronize()  # done at the fourth time
    fake_driver.failures["cuStreamQuery"] = ["NOT_READY"] * 10**6
    with pytest.raises(TimeoutError, match="who waits"):
        device.copy_to_host(np.zeros(4, np.float32), 4096)
    assert not fake_driver.named("cuMemcpyDtoHAsync")
    fake_driver.failures["cuStreamQuery"] = ["ILLEGAL_ADDRESS"]
    with pytest.raises(errors.CudaError, match="ILLEGAL_ADDRESS"):
        device.synchronize()
