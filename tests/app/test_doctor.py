"""The report about this machine, on machines with and without the things it looks for."""

import subprocess
import sys
from types import SimpleNamespace

import numba
import numpy as np
from cuda import pathfinder

from numbanet.app import doctor
from numbanet.app.environment import PACKAGES, environment


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
    for subject in (*subjects, "nvJitLink", "cudart", "cpu", "cuda"):
        assert f" {subject}  " in done.stdout
    assert sys.version.split()[0] in done.stdout


def test_what_this_machine_has():
    found = findings()
    assert found["numpy"] == np.__version__
    assert found["cpu"] == "can run"
    assert found["cuda"].startswith("cannot run: the CUDA target is not part of this version")
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


def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "cache"))
    assert findings()["compiled code"] == f"{tmp_path / 'cache'} (writable)"

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


def test_a_driver_without_gpus(monkeypatch):
    fake_gpus(monkeypatch, count=0)
    assert findings()["GPUs"] == "none"


def fake_gpus(monkeypatch, count):
    """A stand-in for the driver's interface, which needs a driver even to be imported."""
    ok = 0
    attributes = {"MAJOR": 9, "MINOR": 0, "COUNT": 132}
    driver = SimpleNamespace(
        CUresult=SimpleNamespace(CUDA_SUCCESS=ok),
        CUdevice_attribute=SimpleNamespace(
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="MAJOR",
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="MINOR",
            CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT="COUNT",
        ),
        cuInit=lambda flags: (ok,),
        cuDriverGetVersion=lambda: (ok, 13010),
        cuDeviceGetCount=lambda: (ok, count),
        cuDeviceGet=lambda i: (ok, i),
        cuDeviceGetName=lambda length, i: (ok, b"NVIDIA H200" + bytes(length - 11)),
        cuDeviceGetAttribute=lambda which, i: (ok, attributes[which]),
        cuDeviceTotalMem=lambda i: (ok, 140 << 30),
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=driver))
    library = SimpleNamespace(abs_path="/usr/lib/libcuda.so.1")
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", lambda name: library)


def test_environment_is_complete():
    found = environment()
    assert found["packages"]["numba"] == numba.__version__
    assert found["threads"] >= 1
    assert found["vector_bits"] in (None, 128, 256, 512)
