"""The report about this machine, on machines with and without the things it looks for."""

import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from cuda import pathfinder

from numbanet.app import doctor
from numbanet.app.environment import PACKAGES, environment
from numbanet.cuda.driver import device as driver
from numbanet.cuda.toolchain import toolkit


def findings():
    return dict(doctor.doctor())


def test_it_runs_as_a_program_and_lists_everything(program):
    command, environment = program
    done = subprocess.run(
        [*command, "doctor"],
        env=environment,
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    subjects = ("Python", *PACKAGES, "threads", "BLAS", "compiled code", "driver", "nvvm", "nvrtc")
    for subject in (*subjects, "nvJitLink", "cudart", "cpu", "cuda", "compile"):
        assert f" {subject}  " in done.stdout
    assert sys.version.split()[0] in done.stdout


def test_what_this_machine_has():
    found = findings()
    assert found["numpy"] == np.__version__
    assert found["cpu"] == "can run"
    assert found["cuda"].startswith("cannot run: " if driver.why_not() else "can run")
    assert found["threads"].startswith(f"{numba.get_num_threads()} of ")
    assert all("\n" not in finding for finding in found.values())


def test_a_machine_with_nothing(monkeypatch):
    for module in ("cuda", "cuda.bindings", "cuda.pathfinder"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(doctor, "version", lambda package: None)
    found = findings()
    assert found["numba-cuda"] == "not installed: pip install numba-cuda"
    assert found["driver"].startswith("no: ")
    assert found["nvvm"].startswith("no: ")
    assert found["GPUs"].startswith("none found")
    assert found["cuda"].startswith("cannot run: cuda-bindings was not found; pip install")


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "cache"))
    assert findings()["compiled code"] == f"{tmp_path / 'cache'} (writable; 0 kernels, 0.0 MB)"

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert "(not writable: Permission denied;" in findings()["compiled code"]


def test_a_machine_with_two_gpus(monkeypatch):
    fake_gpus(monkeypatch, count=2)
    found = findings()
    assert found["driver"] == "for CUDA 13.1"
    assert found["GPU 0"] == "NVIDIA H200, compute capability 9.0, 140 GiB, 132 SMs"
    assert "GPU 1" in found


def test_a_toolkit_that_is_not_installed(monkeypatch):
    def refuse(name):
        raise pathfinder.DynamicLibNotFoundError(f"{name}\nand much advice")

    fake_gpus(monkeypatch, count=1)
    monkeypatch.setattr(doctor, "cuda_driver", lambda: "for CUDA 12.8")
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", refuse)
    advice = 'no: not found (compiles kernels); pip install "numbanet[cu12]"'
    assert findings()["nvvm"] == advice


@pytest.mark.parametrize("part", ["nvvm", "nvrtc", "cudart"])
def test_a_gpu_without_a_part_of_the_compiler(monkeypatch, part):
    fake_gpus(monkeypatch, count=1)
    monkeypatch.setattr(driver, "why_not", lambda: None)
    monkeypatch.setattr(toolkit, "compiler_version", lambda: "")
    lack(monkeypatch, part)
    found = findings()
    reason = f"cannot run: the library {part} of NVIDIA's CUDA toolkit was not found; pip install "
    assert found["cuda"].startswith(reason)
    assert found["compile"].startswith(reason)


def test_a_gpu_without_an_assembler(monkeypatch):
    """The driver has one, so that only `numbanet compile` needs another."""
    fake_gpus(monkeypatch, count=1)
    monkeypatch.setattr(driver, "why_not", lambda: None)
    monkeypatch.setattr(toolkit, "require_compiler", lambda: None)
    monkeypatch.setattr(toolkit, "assembler_version", toolkit.assembler_version.__wrapped__)
    monkeypatch.setattr(toolkit, "ptxas", toolkit.ptxas.__wrapped__)
    monkeypatch.setattr(toolkit.shutil, "which", lambda name, path: None)
    lack(monkeypatch, "nvJitLink")
    found = findings()
    assert found["cuda"] == "can run"
    assert found["compile"].startswith("cannot run: an assembler for PTX, nvJitLink or ptxas, was")


def test_a_driver_that_is_too_old(monkeypatch):
    fake_gpus(monkeypatch, count=1, version=11080)
    assert findings()["cuda"].startswith("cannot run: the driver supports CUDA 11.8, and")


def test_where_kernels_can_be_compiled(monkeypatch):
    monkeypatch.setattr(toolkit, "require_compiler", lambda: None)
    monkeypatch.setattr(toolkit, "assembler_version", lambda: "an assembler 1.0")
    assert findings()["compile"] == "can run, with an assembler 1.0"


def lack(monkeypatch, part):
    """Let a library be missing, and others be there."""

    def library(name):
        if name == part:
            raise toolkit.missing(f"the library {name} of NVIDIA's CUDA toolkit")
        return name

    monkeypatch.setattr(toolkit, "library", library)


def test_a_driver_without_gpus(monkeypatch):
    fake_gpus(monkeypatch, count=0)
    assert findings()["GPUs"] == "none"


def fake_gpus(monkeypatch, count, version=13010):
    """A stand-in for the driver's interface, which needs a driver even to be imported."""
    ok = 0
    attributes = {"MAJOR": 9, "MINOR": 0, "COUNT": 132}
    interface = SimpleNamespace(
        CUresult=SimpleNamespace(CUDA_SUCCESS=ok),
        CUdevice_attribute=SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="MAJOR",
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="MINOR",
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="COUNT",
        ),
        cuInit=lambda flags: (ok,),
        cuDriverGetVersion=lambda: (ok, version),
        cuDeviceGetCount=lambda: (ok, count),
        cuDeviceGet=lambda i: (ok, i),
        cuDeviceGetName=lambda length, i: (ok, b"NVIDIA H200" + bytes(length - 11)),
        cuDeviceGetAttribute=lambda which, i: (ok, attributes[which]),
        cuDeviceTotalMem=lambda i: (ok, 140 << 30),
    )
    bindings = SimpleNamespace(driver=interface, __spec__="found")
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    library = SimpleNamespace(abs_path="/usr/lib/libcuda.so.1")
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", lambda name: library)


def test_environment_is_complete():
    found = environment()
    assert found["packages"]["numba"] == numba.__version__
    assert found["threads"] >= 1
    assert found["vector_bits"] in (None, 128, 256, 512)
