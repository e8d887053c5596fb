"""Settings of the tests of numbanet.torch."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for processes that tests start as well


@pytest.fixture(autouse=True)
def default_device(request, monkeypatch):
    """The CPU, on machines with a GPU too; but with --device cuda clients use the GPU."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: make test-torch")
    tests = request.module.__name__
    if tests == "test_torch_clients" and request.config.getoption("device") == "cuda":
        torch.set_default_device("cuda")
        yield
        torch.set_default_device(None)
        return
    if tests != "test_torch_cuda":
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # for processes that tests start
    yield
