"""The device behind CUDA tensors, without a GPU: what it asks the driver and PyTorch for."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")
bindings = pytest.importorskip("cuda.bindings.driver", reason="needs NVIDIA's bindings")
pathfinder = pytest.importorskip("cuda.pathfinder", reason="needs NVIDIA's bindings")

sys.path.append(str(Path(__file__).parents[1] / "cuda"))
from stand_ins import FakeDriver  # noqa: E402

from numbanet.cuda.driver import calls  # noqa: E402
from numbanet.cuda.memory import arrays  # noqa: E402
from numbanet.torch import device as torch_device  # noqa: E402


@pytest.fixture
def driver(monkeypatch):
    fake = FakeDriver(bindings)
    monkeypatch.setattr(calls, "bindings", lambda: fake)
    monkeypatch.setattr("numbanet.cuda.driver.context.bindings", lambda: fake)
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", lambda name: SimpleNamespace())
    return fake


@pytest.fixture
def streams(monkeypatch):
    """PyTorch's current stream of each GPU."""
    current = {0: 0}
    monkeypatch.setattr(torch_device, "raw_stream", current.__getitem__)
    return current


@pytest.fixture
def device(driver, streams):
    """Its tensors lie on the CPU."""
    made = torch_device.TensorDevice(0)
    made._where = torch.device("cpu")
    return made


def test_memory_is_pytorchs(device, driver):
    array = arrays.empty((3, 5), "f4", device)
    assert driver.named("cuMemPoolCreate", "cuMemAllocFromPoolAsync", "cuMemAlloc") == []
    (tensor,) = device._tensors.values()
    assert device.address_of(tensor) == array.address
    tensor.fill_(7)
    del array  # which gives the engine's part back; the tensor keeps the memory
    assert device._tensors == {}
    assert driver.named("cuMemFree", "cuMemFreeAsync") == []
    assert tensor.eq(7).all()


def test_work_is_queued_on_the_current_stream_and_waits_for_no_other(device, driver, streams):
    for stream in (5, 0, 5):
        streams[0] = stream
        device.use_current_stream()
        driver.calls.clear()
        device.zero(4096, 16)
        assert driver.named("cuMemsetD8Async") == [("cuMemsetD8Async", 4096, 0, 16, stream)]
        names = {name for name, *_ in driver.calls}
        assert names <= {
            "cuMemsetD8Async",
            "cuCtxGetCurrent",
            "cuCtxPushCurrent",
            "cuCtxPopCurrent",
            "cuCtxSetCurrent",
        }
