"""The device without memory and launches: what it compiles is what a GPU will ask for."""

import models
import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numbanet.app.compile_kernels import run_everything
from numbanet.cuda.driver.compile_only import CompileOnlyDevice
from numbanet.cuda.driver.device import CudaDevice
from numbanet.cuda.memory.arrays import to_device
from numbanet.cuda.toolchain import assembler, compiler

NAME = "product"


pytestmark = pytest.mark.usefixtures("assembler")


def compile_all(device, n=100):
    run_everything(models.create(NAME, device=device, precision="float16"), n)
    return device


@pytest.fixture
def compiled():
    """A device that has compiled everything, after which nothing else can be compiled."""
    device = compile_all(CompileOnlyDevice((9, 0)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "translate", None)
        patch.setattr(assembler, "link", None)
        yield device


def test_a_gpu_finds_every_kernel(compiled, fake_driver, monkeypatch):
    fake_driver.answers["cuPointerGetAttribute"] = (None,)
    monkeypatch.setattr(CudaDevice, "allocate", CompileOnlyDevice((9, 0)).allocate)
    loaded = []
    load = CudaDevice.load
    monkeypatch.setattr(
        CudaDevice, "load", lambda gpu, code: loaded.append(code) or load(gpu, code)
    )
    compile_all(CudaDevice())
    assert fake_driver.named("cuLaunchKernel")
    assert [code.image for code in loaded] == [kernel.cubin.image for kernel in compiled.kernels]


def test_another_compute_capability_is_compiled_anew(compiled):
    with pytest.raises(TypeError):
        compile_all(CompileOnlyDevice((8, 9)))


@pytest.mark.parametrize("n_multiprocessors", [1, 1000])
def test_the_size_of_the_gpu_changes_no_code(compiled, n_multiprocessors):
    device = CompileOnlyDevice((9, 0))
    device.n_multiprocessors = n_multiprocessors
    compile_all(device)
    assert [kernel.ptx for kernel in device.kernels] == [kernel.ptx for kernel in compiled.kernels]


@pytest.mark.parametrize("n", [1, 129, 10_000])
def test_the_size_of_the_batch_changes_no_code(compiled, n):
    kernels = compile_all(CompileOnlyDevice((9, 0)), n).kernels
    assert [kernel.ptx for kernel in kernels] == [kernel.ptx for kernel in compiled.kernels]


def test_launches_are_those_of_a_step(compiled):
    device = CompileOnlyDevice((9, 0))
    model = models.create(NAME, device=device, precision="float16")
    x, y = models.batch_of(NAME, 10)
    model.trainer.training_step(x, y)
    device.launches.clear()
    model.trainer.training_step(x, y)
    names = [kernel.name for kernel in device.launches]
    assert names[0] == "Identity_forward"
    assert names[-1] == "Adam_optimize"
    n_products = sum("weight_gradients" in name for name in names)
    assert n_products == len(model.network.network.shapes)


def test_a_step_that_comes_again_launches_the_same(compiled):
    """Kernel by kernel at first, then as a graph."""
    device = CompileOnlyDevice((9, 0))
    model = models.create(NAME, device=device, precision="float16")
    x, y = (to_device(array, device) for array in models.batch_of(NAME, 10))
    launches = []
    for _ in range(4):
        device.launches.clear()
        model.trainer.training_step(x, y)
        launches.append([kernel.name for kernel in device.launches])
    assert launches[1] == launches[2] == launches[3] == launches[0][-len(launches[1]) :]
    assert len(launches[1]) > 3


def test_memory_is_pretended():
    device = CompileOnlyDevice((9, 0))
    first, second = device.allocate(1000), device.allocate(1)
    assert first % 256 == second % 256 == 0
    assert second >= first + 1000
    assert device.allocate(0) == 0
    host = np.ones(3, np.float32)
    device.copy_to_host(host, first)
    assert not host.any()


def test_machine_instructions_are_counted(compiled):
    for kernel in compiled.kernels:
        assert kernel.ptx.n_instructions > 5
        assert 8 <= kernel.cubin.n_instructions < 16 * kernel.ptx.n_instructions
        assert kernel.seconds >= 0


def test_ptx_alone_needs_no_assembler(monkeypatch):
    monkeypatch.setattr("numbanet.cuda.driver.compile_only.assemble", None)
    device = compile_all(CompileOnlyDevice((9, 0), assembles=False))
    assert all(kernel.cubin is None for kernel in device.kernels)
