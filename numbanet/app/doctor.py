"""`numbanet doctor`: what is installed, what was found, and whether each target can run.

Every probe may meet a machine on which its subject is missing or broken; what it raises becomes its
line in the report.
"""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from numbanet.app.environment import PACKAGES, processor, vector_bits, version

TOOLKIT_PARTS = {
    "nvvm": "compiles kernels",
    "nvrtc": "numba-cuda needs it to compile",
    "cudart": "numba-cuda needs it to compile",
    "nvJitLink": "assembles kernels; without it the driver does",
}


def probe(question: Callable[[], Any]) -> str:
    """Result of a probe, or its error, as one line."""
    try:
        return str(question())
    except Exception as error:  # any failure is the finding
        reason = str(error).strip().partition("\n")[0]
        return f"no: {reason or type(error).__name__}"


def doctor() -> Iterator[tuple[str, str]]:
    """Findings as (subject, finding); ("", heading) starts a new group."""
    yield "", "Software"
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        yield package, version(package) or f"not installed: pip install {package}"
    yield "", "Processor"
    yield "processor", probe(processor)
    yield "vectors", probe(lambda: f"{vector_bits()} bits")
    threading = probe(threads)
    yield "threads", threading
    yield "BLAS", probe(blas)
    yield "compiled code", probe(cache)
    yield "", "NVIDIA"
    driver = probe(cuda_driver)
    yield "driver", driver
    extra = "cu12" if "CUDA 12." in driver else "cu13"
    for part, purpose in TOOLKIT_PARTS.items():
        found = probe(lambda part=part: toolkit_part(part))
        advice = f'; pip install "numbanet[{extra}]"' if found.startswith("no: ") else ""
        yield part, f"{found} ({purpose}){advice}"
    if driver.startswith("no: "):
        yield "GPUs", "none found; they need NVIDIA's driver"
    else:
        yield from gpus()
    yield "", "Targets"
    yield "cpu", cpu_target(threading)
    yield "cuda", probe(cuda_target)
    yield "compile", probe(ahead_of_time)


def threads() -> str:
    import numba
    from numba.np.ufunc import parallel

    parallel._launch_threads()  # names the threading layer without compiling anything
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{numba.get_num_threads()} of {available} cores ({numba.threading_layer()})"


def blas() -> str:
    import numpy as np

    found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{found['name']} {found['version']} (NumPy's; on the CPU, Shampoo uses it)"


def cache() -> str:
    from numbanet.app.kernel_files import summary
    from numbanet.code_store import directory, why_not_used

    path = directory()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    advice = "every start compiles anew; name another directory in NUMBANET_CACHE_DIR"
    reason = why_not_used(path)
    if reason is not None:
        return f"{path} (not used: {reason}; {advice})"
    try:
        with tempfile.TemporaryFile(dir=existing):
            return f"{path} (writable; {summary(path)})"
    except OSError as error:
        return f"{path} (not writable: {error.strerror}; {advice})"


def cuda_driver() -> str:
    from cuda import pathfinder
    from cuda.bindings import driver

    try:
        pathfinder.load_nvidia_dynamic_lib("cuda")
    except pathfinder.DynamicLibNotFoundError:
        raise RuntimeError("no NVIDIA driver is installed") from None
    from numbanet.cuda.driver.calls import checked

    checked(driver.cuInit(0))
    number = checked(driver.cuDriverGetVersion())
    return f"for CUDA {number // 1000}.{number % 1000 // 10}"


def toolkit_part(name: str) -> str:
    from cuda import pathfinder

    try:
        return str(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
    except pathfinder.DynamicLibNotFoundError:
        raise RuntimeError("not found") from None


def gpus() -> Iterator[tuple[str, str]]:
    from cuda.bindings import driver

    from numbanet.cuda.driver.calls import checked

    count = int(probe(lambda: checked(driver.cuDeviceGetCount())))
    if not count:
        yield "GPUs", "none"
    for i in range(count):
        yield f"GPU {i}", probe(lambda i=i: gpu(i))


def gpu(i: int) -> str:
    from cuda.bindings import driver

    from numbanet.cuda.driver.calls import checked

    handle = checked(driver.cuDeviceGet(i))
    attribute = driver.CUdevice_attribute
    name = checked(driver.cuDeviceGetName(128, handle)).split(b"\0")[0].decode()
    major, minor, processors = (
        checked(driver.cuDeviceGetAttribute(which, handle))
        for which in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
    )
    memory = checked(driver.cuDeviceTotalMem(handle)) / 2**30
    return f"{name}, compute capability {major}.{minor}, {memory:.0f} GiB, {processors} SMs"


def cpu_target(threading: str) -> str:
    if threading.startswith("no: "):
        return f"cannot run: Numba's threads do not start: {threading}; pip install --upgrade numba"
    return "can run"


def cuda_target() -> str:
    """Report whether models run with device="cuda"; missing parts come with their remedy."""
    from numbanet.cuda.driver import device as driver

    reason = driver.why_not() or missing_compiler()
    return f"cannot run: {reason}" if reason else "can run"


def ahead_of_time() -> str:
    """Report whether `numbanet compile` works, which needs no GPU."""
    from numbanet.cuda.errors import CudaError
    from numbanet.cuda.toolchain import toolkit

    reason = missing_compiler()
    try:
        assembler = toolkit.assembler_version()
    except CudaError as error:
        reason = reason or str(error)
    return f"cannot run: {reason}" if reason else f"can run, with {assembler}"


def missing_compiler() -> str | None:
    """Reason why kernels cannot be compiled for CUDA; None if they can."""
    from numbanet.cuda.errors import CudaError
    from numbanet.cuda.toolchain import toolkit

    try:
        toolkit.require_compiler()
    except CudaError as error:
        return str(error)
    return None
