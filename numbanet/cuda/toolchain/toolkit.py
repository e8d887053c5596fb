"""Parts of NVIDIA's toolkit: their paths, versions and installation."""

import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from numbanet.cuda.errors import DeviceTooOldError, ToolkitMissingError

OLDEST = (7, 5)  # supported by CUDA 13
COMPILER_PARTS = ("nvvm", "nvrtc", "cudart")  # NVVM, and libraries that numba-cuda needs for it


def check_compute_capability(compute_capability: tuple[int, int]) -> None:
    """Check that the toolkit supports a GPU.

    Raises:
        DeviceTooOldError: it does not.
    """
    if compute_capability < OLDEST:
        found, oldest = (".".join(map(str, pair)) for pair in (compute_capability, OLDEST))
        raise DeviceTooOldError(
            f"compute capability {found} is not supported, the oldest is {oldest} (Turing, 2018); "
            'use device="cpu"'
        )


def extra() -> str:
    """Optional dependency with the toolkit: "cu12" or "cu13", as the bindings are."""
    return f"cu{bindings_version()[0]}"


@cache
def bindings_version() -> tuple[int, int]:
    """CUDA version of cuda-bindings; (13, 0) if they are missing."""
    try:
        major, minor = version("cuda-bindings").split(".")[:2]
    except PackageNotFoundError:
        return 13, 0
    return int(major), int(minor)


def missing(part: str) -> ToolkitMissingError:
    return ToolkitMissingError(f'{part} was not found; pip install "numbanet[{extra()}]"')


def require_package(module: str, name: str) -> None:
    """Check that a package can be imported.

    Raises:
        ToolkitMissingError: it is not installed.
    """
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package of the module is missing
        found = False
    if not found:
        raise missing(name)


@cache
def library(name: str) -> str:
    """Load a library of the toolkit, such as "nvvm", and return its path.

    Raises:
        ToolkitMissingError: it is not installed.
    """
    require_package("cuda.pathfinder", "cuda-pathfinder")
    from cuda import pathfinder

    try:
        return pathfinder.load_nvidia_dynamic_lib(name).abs_path
    except pathfinder.DynamicLibNotFoundError:
        raise missing(f"the library {name} of NVIDIA's CUDA toolkit") from None


def require_compiler() -> None:
    """Check that kernels can be compiled.

    Raises:
        ToolkitMissingError: a part is not installed.
    """
    compiler_version()
    for part in COMPILER_PARTS:
        library(part)


@cache
def compiler_version() -> str:
    """Versions of the compiler to PTX: numba-cuda and NVVM, whose size stands for its build.

    Raises:
        ToolkitMissingError: one of them is not installed.
    """
    require_package("numba_cuda", "numba-cuda")
    require_package("cuda.bindings", "cuda-bindings")
    size = Path(library("nvvm")).stat().st_size
    from cuda.bindings import nvvm

    ir_version = ".".join(map(str, nvvm.ir_version()))
    return f"numba-cuda {version('numba-cuda')}, NVVM {ir_version} ({size} bytes)"


@cache
def assembler_version() -> str:
    """Version of the assembler of PTX: nvJitLink or, where that is missing, the program ptxas.

    Raises:
        ToolkitMissingError: neither is installed.
    """
    try:
        path = library("nvJitLink")
    except ToolkitMissingError:
        return f"ptxas {ptxas_version(ptxas())}"
    require_package("cuda.bindings", "cuda-bindings")
    from cuda.bindings import nvjitlink

    major, minor = nvjitlink.version()
    return f"nvJitLink {major}.{minor} ({Path(path).stat().st_size} bytes)"


@cache
def ptxas() -> str:
    """Path of the program ptxas: of a wheel, on PATH, or below CUDA_HOME or CUDA_PATH.

    Raises:
        ToolkitMissingError: it is nowhere there.
    """
    folders = [os.environ.get("PATH", "")]
    folders += [
        f"{os.environ[name]}/bin" for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)
    ]
    spec = importlib.util.find_spec("nvidia")
    for wheels in spec.submodule_search_locations if spec else ():
        folders += [f"{wheels}/cu{extra()[2:]}/bin", f"{wheels}/cuda_nvcc/bin"]
    found = shutil.which("ptxas", path=os.pathsep.join(folders))
    if found is None:
        raise missing("an assembler for PTX, nvJitLink or ptxas,")
    return found


def ptxas_version(path: str) -> str:
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"V[\d.]+", done.stdout)
    return found[0] if found else "of an unknown version"
