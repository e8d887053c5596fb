"""What the tests of the CUDA target share: a GPU, if there is one, or what stands in for it."""

from types import SimpleNamespace

import pytest
from stand_ins import FakeDriver, HostDevice

from numbanet.cuda.driver import calls as driver_calls
from numbanet.cuda.driver import device as driver


@pytest.fixture(scope="session")
def gpu():
    """The first GPU; without one the test is skipped."""
    reason = driver.why_not()
    if reason is not None:
        pytest.skip(f"needs an NVIDIA GPU: {reason}")
    return driver.CudaDevice()


@pytest.fixture
def kernel_directory(monkeypatch, tmp_path):
    """An empty directory for compiled code."""
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def fake_driver(monkeypatch):
    """A driver behind which there is no GPU, in the place of the real one."""
    bindings = pytest.importorskip("cuda.bindings.driver")
    pathfinder = pytest.importorskip("cuda.pathfinder")
    fake = FakeDriver(bindings)
    monkeypatch.setattr(driver_calls, "bindings", lambda: fake)
    monkeypatch.setattr("numbanet.cuda.driver.context.bindings", lambda: fake)
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", lambda name: SimpleNamespace())
    return fake


@pytest.fixture
def host_device():
    return HostDevice()
