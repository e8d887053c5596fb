"""What implements a protocol has all of it, under the same names."""

import inspect

import pytest

from emulator.device import EmulatedDevice

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.cpu.encoding_engine import EncodingEngine as CpuEncodingEngine
from numbanet.cpu.engine import CpuEngine
from numbanet.cuda.chain.encoding_engine import EncodingEngine as CudaEncodingEngine
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.driver.device import CudaDevice
from numbanet.cuda.driver.protocol import Device
from numbanet.cuda.engine import CudaEngine
from numbanet.engine import EncodingEngine, Engine

IMPLEMENTATIONS = (
    *((Device, each) for each in (CudaDevice, CompileOnlyDevice, EmulatedDevice)),
    *((Engine, each) for each in (CpuEngine, CudaEngine)),
    *((EncodingEngine, each) for each in (CpuEncodingEngine, CudaEncodingEngine)),
)


def methods_of(kind):
    return {
        name: list(inspect.signature(method).parameters)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("protocol", "kind"), IMPLEMENTATIONS)
def test_methods_and_their_parameters(protocol, kind):
    found = methods_of(kind)
    for name, parameters in methods_of(protocol).items():
        assert found.get(name) == parameters, name


@pytest.mark.parametrize("device", [CompileOnlyDevice((9, 0)), EmulatedDevice()])
def test_attributes_of_a_device(device):
    assert {name for name in Device.__annotations__ if not hasattr(device, name)} == set()
