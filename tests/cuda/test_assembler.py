"""Assembling PTX without a GPU."""

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")

from numba import cuda

from numbanet.cuda import errors
from numbanet.cuda.toolchain import assembler, toolkit
from numbanet.cuda.toolchain.assembler import assemble, read_report
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.cuda.toolchain.machine_code import PTX, Resources
from numbanet.storage.views import float_vector

TYPES = "uint64", "int32"
ARCHITECTURES = [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)]


pytestmark = pytest.mark.usefixtures("assembler")


def total(px, n):
    x = float_vector(px, n)
    part = cuda.shared.array(64, np.float32)
    t = np.uint32(cuda.threadIdx.x)
    part[t] = x[t]
    cuda.syncthreads()
    if t == np.uint32(0):
        for k in range(1, 64):
            part[0] += part[np.uint32(k)]
        x[0] = part[0]


@pytest.mark.parametrize("capability", ARCHITECTURES, ids=lambda pair: "sm_{}{}".format(*pair))
def test_machine_code_and_its_resources(capability):
    cubin = assemble(compile_ptx(total, TYPES, capability), capability)
    assert cubin.image.startswith(b"\x7fELF")
    assert cubin.name == "total"
    resources = cubin.resources
    assert 8 <= resources.registers <= 64
    assert resources.shared_bytes >= 256
    assert (resources.spill_stores, resources.spill_loads, resources.local_bytes) == (0, 0, 0)


def test_the_program_ptxas_gives_the_same_report():
    try:
        toolkit.ptxas()
    except errors.ToolkitMissingError:
        pytest.skip("needs the program ptxas, of the wheel nvidia-cuda-nvcc")
    ptx = compile_ptx(total, TYPES, (8, 0))
    image, report = assembler.link_by_program(ptx, "sm_80")
    assert image.startswith(b"\x7fELF")
    assert read_report(report).shared_bytes == assemble(ptx, (8, 0)).resources.shared_bytes
    with pytest.raises(errors.CompilationError, match="kernel total does not assemble for sm_75"):
        assembler.link_by_program(ptx, "sm_75")


def test_a_report_with_spills():
    report = """
ptxas info    : Function properties for k
ptxas         .     24 bytes stack frame, 20 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size, 1536 bytes smem
"""
    assert read_report(report) == Resources(255, 1536, 20, 16, 24)


def test_it_is_found_again(kernel_directory, monkeypatch):
    ptx = compile_ptx(total, TYPES, (9, 0))
    first = assemble(ptx, (9, 0))
    monkeypatch.setattr(assembler, "link", None)
    assert assemble(ptx, (9, 0)) == first
    with pytest.raises(TypeError):
        assemble(PTX(ptx.text + "\n", ptx.name), (9, 0))


def test_a_damaged_file_is_replaced(kernel_directory):
    ptx = compile_ptx(total, TYPES, (9, 0))
    first = assemble(ptx, (9, 0))
    (path,) = kernel_directory.glob("*.cubin")
    path.write_bytes(path.read_bytes()[:-100])
    assert assemble(ptx, (9, 0)) == first


def test_code_for_a_newer_gpu_is_refused(kernel_directory):
    ptx = compile_ptx(total, TYPES, (9, 0))
    with pytest.raises(errors.CompilationError, match="kernel total does not assemble for sm_80"):
        assemble(ptx, (8, 0))


def test_a_gpu_that_nobody_knows(kernel_directory):
    with pytest.raises(errors.CompilationError, match="sm_355"):
        assemble(compile_ptx(total, TYPES, (9, 0)), (35, 5))


def test_text_that_is_no_ptx(kernel_directory):
    with pytest.raises(errors.CompilationError, match="kernel k does not assemble"):
        assemble(PTX("nonsense", "k"), (9, 0))


def test_without_any_assembler(kernel_directory, monkeypatch):
    ptx = compile_ptx(total, TYPES, (9, 0))

    def library(name):
        raise toolkit.missing(name)

    monkeypatch.setattr(toolkit, "library", library)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name, path: None)
    for function in ("ptxas", "assembler_version"):
        monkeypatch.setattr(toolkit, function, getattr(toolkit, function).__wrapped__)
    with pytest.raises(errors.ToolkitMissingError, match=r"nvJitLink or ptxas.*pip install"):
        assemble(ptx, (9, 0))
