"""Versions and processor that this program runs on. Safe to ask on any machine."""

import os
import platform
from importlib import metadata
from pathlib import Path

import llvmlite.binding
import numba

PACKAGES = (
    "numbanet",
    "numpy",
    "numba",
    "llvmlite",
    "numba-cuda",
    "cuda-bindings",
    "safetensors",
)

# The widest of these that the processor has tells how many float32 fit in a register.
VECTOR_BITS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "neon": 128}


def version(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name as the system gives it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def vector_bits() -> int | None:
    """Width of the processor's widest vector registers, where known."""
    features = llvmlite.binding.get_host_cpu_features()
    return next((bits for name, bits in VECTOR_BITS.items() if features.get(name)), None)


def environment() -> dict[str, object]:
    """Versions and hardware that belong to every measurement."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: version(package) for package in PACKAGES},
        "processor": processor(),
        "llvm_processor": llvmlite.binding.get_host_cpu_name(),
        "vector_bits": vector_bits(),
        "cores": os.cpu_count(),
        "threads": numba.get_num_threads(),
    }
