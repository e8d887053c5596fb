"""Arrays on a device: in host memory everywhere, and on a GPU where there is one."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
from stand_ins import HostDevice

from numbanet.cuda.memory import dlpack
from numbanet.cuda.memory.arrays import DeviceArray, empty, to_device, zeros
from numbanet.cuda.memory.dlpack import BFLOAT16, Imported
from numbanet.cuda.memory.inputs import as_device_matrix, as_device_vector, to_host

X = np.arange(24, dtype=np.float32).reshape(6, 4)


class Interface:
    """An array that offers `__cuda_array_interface__` alone."""

    def __init__(self, array, **changes):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            **changes,
        }


class OnlyDLPack:
    """An array that offers DLPack alone."""

    def __init__(self, array):
        self.__dlpack__ = array.__dlpack__
        self.__dlpack_device__ = array.__dlpack_device__


# Arrays


def test_copies_there_and_back(host_device):
    array = to_device(X, host_device)
    assert (array.shape, array.ndim, array.size, array.nbytes) == ((6, 4), 2, 24, 96)
    assert array.dtype == np.float32
    assert len(array) == 6
    np.testing.assert_array_equal(array.numpy(), X)
    np.testing.assert_array_equal(np.asarray(array), X)
    assert np.asarray(array, np.int8).dtype == np.int8
    assert repr(array) == "DeviceArray(shape=(6, 4), dtype=float32, device=<host memory>)"
    with pytest.raises(ValueError, match="without a copy"):
        np.array(array, copy=False)


@pytest.mark.parametrize("dtype", [np.float16, np.uint32, np.float32])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0), (2, 3, 4)])
def test_all_shapes_and_types(host_device, dtype, shape):
    host = np.ones(shape, dtype)
    np.testing.assert_array_equal(to_device(host, host_device).numpy(), host)
    np.testing.assert_array_equal(zeros(shape, dtype, host_device).numpy(), 0 * host)


def test_not_c_ordered_arrays_are_copied_in_order(host_device):
    np.testing.assert_array_equal(to_device(X.T[::-1], host_device).numpy(), X.T[::-1])


@pytest.mark.parametrize("rows", [0, 5, -1, slice(2, 5), slice(None), slice(4, 2), slice(-2, 99)])
def test_rows_share_the_memory(host_device, rows):
    array = to_device(X, host_device)
    np.testing.assert_array_equal(array[rows].numpy(), X[rows])
    assert array[rows].owner is array.owner


@pytest.mark.parametrize("rows", [6, -7, slice(None, None, 2), slice(None, None, -1)])
def test_rows_that_are_not_there(host_device, rows):
    with pytest.raises(IndexError, match=r"row|step"):
        to_device(X, host_device)[rows]


def test_other_indices_are_refused(host_device):
    with pytest.raises(TypeError, match=r"numpy\(\)"):
        to_device(X, host_device)[0, 1]
    with pytest.raises(TypeError, match="without dimensions"):
        len(to_device(np.float32(1), host_device))


def test_reshape(host_device):
    array = to_device(X, host_device)
    np.testing.assert_array_equal(array.reshape(2, 12).numpy(), X.reshape(2, 12))
    with pytest.raises(ValueError, match="cannot become"):
        array.reshape(5, 5)


def test_a_number(host_device):
    assert float(to_device(np.float32(2.5), host_device)) == 2.5
    assert float(to_device(X, host_device)[1].reshape(4)[2:3]) == 6


def test_memory_lives_as_long_as_its_last_part(host_device):
    array = to_device(X, host_device)
    part = array[2:3]
    del array
    np.testing.assert_array_equal(part.numpy(), X[2:3])
    assert len(host_device.memory) == 1
    del part
    gc.collect()
    assert not host_device.memory


# To other libraries


def test_cuda_array_interface(host_device):
    array = to_device(X, host_device)[2:]
    assert array.__cuda_array_interface__ == {
        "shape": (4, 4),
        "typestr": "<f4",
        "data": (array.owner.address + 32, False),
        "strides": None,
        "stream": 1,
        "version": 3,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint32, np.int64])
@pytest.mark.parametrize("shape", [(6, 4), (0, 4), (), (3,)])
def test_dlpack_is_understood_by_numpy(dtype, shape):
    host = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    array = to_device(host, HostDevice((1, 0)))
    taken = np.from_dlpack(array)
    np.testing.assert_array_equal(taken, host)
    if host.size:
        assert taken.ctypes.data == array.address


def test_who_takes_an_array_keeps_its_memory():
    device = HostDevice((1, 0))
    taken = np.from_dlpack(to_device(X, device))
    gc.collect()
    assert device.memory
    np.testing.assert_array_equal(taken, X)
    del taken
    gc.collect()
    assert not device.memory
    assert not dlpack._handed_out


def test_a_capsule_that_nobody_takes_is_released():
    device = HostDevice((1, 0))
    capsule = to_device(X, device).__dlpack__()
    assert device.memory
    del capsule
    gc.collect()
    assert not device.memory
    assert not dlpack._handed_out


@pytest.mark.parametrize(
    ("stream", "ordered"), [(None, [(1, 0)]), (1, [(1, 1)]), (-1, []), (7, [(1, 7)])]
)
def test_the_consumers_stream_waits(host_device, stream, ordered):
    capsule = to_device(X, host_device).__dlpack__(stream=stream)
    assert host_device.ordered == ordered
    del capsule
    gc.collect()
    assert ("all" in host_device.ordered) == (stream in (7, -1))


def test_dlpack_copies_on_request(host_device):
    array = to_device(X, host_device)
    np.testing.assert_array_equal(np.from_dlpack(array, device="cpu"), X)
    with pytest.raises(BufferError, match="host only"):
        array.__dlpack__(dl_device=(2, 1))
    with pytest.raises(BufferError):
        array.__dlpack__(dl_device=(1, 0), copy=False)
    copy = dlpack.read(array.__dlpack__(copy=True))
    assert copy.address != array.address


def test_memory_that_others_cannot_see():
    array = to_device(X, HostDevice(None))
    assert not hasattr(array, "__cuda_array_interface__")
    with pytest.raises(BufferError):
        array.__dlpack__()
    np.testing.assert_array_equal(array.numpy(), X)


# From other libraries

TAKEN = {
    "interface": Interface,
    "DLPack": lambda x: OnlyDLPack(to_device(x, HostDevice())),
    "another device object": lambda x: to_device(x, HostDevice()),
}


@pytest.mark.parametrize("name", TAKEN)
def test_float32_is_taken_as_it_is(host_device, name):
    value = TAKEN[name](X)
    array = as_device_matrix(value, "inputs", 4, None, host_device)
    assert host_device.n_copies == 0
    del value
    gc.collect()
    np.testing.assert_array_equal(array.numpy(), X)


def test_ones_own_array_stays_itself(host_device):
    array = to_device(X, host_device)
    assert as_device_matrix(array, "inputs", 4, 6, host_device) is array
    halves = to_device(X.astype(np.float16), host_device)
    np.testing.assert_array_equal(as_device_matrix(halves, "x", 4, 6, host_device).numpy(), X)


CONVERTED = {
    "NumPy": lambda x: x,
    "lists": lambda x: x.tolist(),
    "float64": lambda x: x.astype(np.float64),
    "interface of float16": lambda x: Interface(x.astype(np.float16)),
    "interface of int64": lambda x: Interface(x.astype(np.int64)),
    "transposed": lambda x: Interface(np.ascontiguousarray(x.T).T),
    "backwards": lambda x: Interface(np.ascontiguousarray(x[::-1])[::-1]),
    "some columns": lambda x: Interface(np.concatenate([x, x], axis=1)[:, :4]),
    "one row repeated": lambda x: Interface(np.broadcast_to(x[:1], x.shape)),
    "big endian": lambda x: Interface(x.astype(">f4")),
    "DLPack of int32": lambda x: OnlyDLPack(to_device(x.astype(np.int32), HostDevice())),
    "DLPack on the host": OnlyDLPack,
}


@pytest.mark.parametrize("name", CONVERTED)
def test_the_rest_is_converted(host_device, name):
    value = CONVERTED[name](X)
    expected = np.broadcast_to(X[:1], X.shape) if name == "one row repeated" else X
    array = as_device_matrix(value, "inputs", 4, 6, host_device)
    assert isinstance(array, DeviceArray)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array.numpy(), expected)


@pytest.mark.parametrize("n_rows", [0, 1])
def test_few_rows(host_device, n_rows):
    for value in (X[:n_rows], Interface(X[:n_rows]), Interface(np.zeros((n_rows, 8))[:, ::2])):
        assert as_device_matrix(value, "inputs", 4, None, host_device).shape == (n_rows, 4)


def test_bfloat16():
    device = HostDevice()
    bits = (X.view(np.uint32) >> 16).astype(np.uint16)
    memory = to_device(bits, device)
    imported = Imported(memory.address, X.shape, None, BFLOAT16, memory)
    np.testing.assert_array_equal(to_host(imported, device), X)


def test_the_producers_stream_is_waited_for(host_device):
    as_device_matrix(Interface(X, stream=9), "inputs", 4, None, host_device)
    as_device_matrix(Interface(X, stream=None), "inputs", 4, None, host_device)
    assert host_device.ordered == [(9, 1)]
    other = HostDevice()
    as_device_matrix(OnlyDLPack(to_device(X, other)), "inputs", 4, None, host_device)
    assert other.ordered == [(1, 1)]  # the producer orders, for the stream that it is told


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 5), (2, 3, 4), (), (5, 4)])
@pytest.mark.parametrize("make", [lambda x, _: x, lambda x, _: Interface(x), to_device])
def test_a_wrong_shape_says_what_is_expected(host_device, shape, make):
    value = make(np.zeros(shape, np.float32), host_device)
    with pytest.raises(ValueError, match=r"targets: expected shape \[6, 4\].* got \["):
        as_device_matrix(value, "targets", 4, 6, host_device)


@pytest.mark.parametrize("make", [Interface, lambda x: to_device(x, HostDevice((2, 3)))])
@pytest.mark.parametrize("device", [(2, 0), None])
def test_an_array_on_another_gpu(make, device):
    value = make(X)
    device = HostDevice(device)
    device.ordinal_of = lambda address: 3
    with pytest.raises(TypeError, match=r"inputs: the array lies on .* and the model on"):
        as_device_matrix(value, "inputs", 4, None, device)


def test_what_dlpack_refuses(host_device):
    def refuse(**options):
        raise BufferError("it needs a gradient")

    value = SimpleNamespace(__dlpack__=refuse, __dlpack_device__=lambda: (2, 0))
    with pytest.raises(TypeError, match=r"inputs: .*through DLPack \(it needs a gradient\)"):
        as_device_matrix(value, "inputs", 4, None, host_device)


def test_complex_numbers_are_refused(host_device):
    for value in (X.astype(complex), Interface(X.astype(complex))):
        with pytest.raises(TypeError, match="real numbers"):
            as_device_matrix(value, "inputs", 4, None, host_device)


@pytest.mark.parametrize("make", [np.asarray, Interface, np.ndarray.tolist])
def test_vectors(host_device, make):
    v = X.reshape(-1)
    array = as_device_vector(make(v), "params", 24, host_device)
    assert array.shape == (24,)
    np.testing.assert_array_equal(array.numpy(), v)
    with pytest.raises(ValueError, match=r"params: expected shape .*23\]"):
        as_device_vector(make(v), "params", 23, host_device)


# On a GPU


def test_round_trip_on_the_gpu(gpu):
    array = to_device(X, gpu)
    np.testing.assert_array_equal(array[1:3].numpy(), X[1:3])
    np.testing.assert_array_equal(zeros((3, 4), np.float32, gpu).numpy(), 0)
    assert empty((0, 4), np.float32, gpu).numpy().shape == (0, 4)


@pytest.fixture(params=["torch", "cupy"])
def library(request, gpu):
    module = pytest.importorskip(request.param, reason=f"needs {request.param} for the GPU")
    if request.param == "torch" and not module.cuda.is_available():
        pytest.skip("needs PyTorch with CUDA")
    return module


def made_by(library, host):
    if library.__name__ == "torch":
        return library.from_numpy(host.copy()).to("cuda:0")
    return library.asarray(host)


def as_numpy(array):
    return array.cpu().numpy() if hasattr(array, "cpu") else array.get()


def test_other_libraries_give_without_a_copy(gpu, library):
    value = made_by(library, X)
    array = as_device_matrix(value, "inputs", 4, 6, gpu)
    pointer = value.data_ptr() if hasattr(value, "data_ptr") else value.data.ptr
    assert array.address == pointer
    np.testing.assert_array_equal(array.numpy(), X)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int64])
def test_other_libraries_give_other_types(gpu, library, dtype):
    value = made_by(library, np.concatenate([X, X], axis=1).astype(dtype))[:, 4:]
    array = as_device_matrix(value, "inputs", 4, 6, gpu)
    np.testing.assert_array_equal(array.numpy(), X)


def test_other_libraries_take_without_a_copy(gpu, library):
    array = to_device(X, gpu)
    taken = library.from_dlpack(array)
    address = array.address
    del array
    gc.collect()
    assert taken.__cuda_array_interface__["data"][0] == address
    np.testing.assert_array_equal(as_numpy(taken), X)
    by_interface = library.asarray(to_device(X, gpu))
    np.testing.assert_array_equal(as_numpy(by_interface), X)


def test_bfloat16_of_torch(gpu):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    value = torch.from_numpy(X.copy()).to("cuda:0", torch.bfloat16)
    np.testing.assert_array_equal(as_device_matrix(value, "x", 4, 6, gpu).numpy(), X)


def test_a_gradient_of_torch(gpu):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    value = torch.from_numpy(X.copy()).to("cuda:0").requires_grad_()
    with pytest.raises(TypeError, match="gradient"):
        as_device_matrix(value, "x", 4, 6, gpu)


def test_streams_of_torch(gpu):
    """Work on another stream is waited for, in both directions."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = torch.ones((4096, 4096), device="cuda:0")
        for _ in range(20):
            x = x @ x / 4096  # takes some milliseconds, and keeps all at 1
        array = as_device_matrix(x, "x", 4096, 4096, gpu)
    np.testing.assert_array_equal(array.numpy(), 1)
    with torch.cuda.stream(stream):
        taken = torch.from_dlpack(array)
        assert float((taken + 1).sum()) == 2 * 4096**2


def test_a_stream_of_ones_own(gpu):
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    stream = torch.cuda.Stream()
    gpu.stream = stream.cuda_stream
    try:
        array = to_device(X, gpu)
        assert array.__cuda_array_interface__["stream"] == stream.cuda_stream
        np.testing.assert_array_equal(torch.from_dlpack(array).cpu().numpy(), X)
        del array
    finally:
        gpu.stream = 0
    assert gpu.stream == 1
