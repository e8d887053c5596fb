"""Settings and fixtures of all tests: the library's, the emulator's, the benchmarks'."""

import ctypes
import gc
import os
import re
import sys

import hypothesis
import pytest

# Compilation takes seconds, so there is no deadline; the same examples are drawn in every run.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


# Compilers make millions of small objects that live: to look for cycles among them less often takes
# a tenth of the time off a compilation.
gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def free_memory_goes_back():
    """What compilations leave in the C library's heap, which is more than what lives in it."""
    yield
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def pytest_collection_finish():
    """Set aside what was imported and collected: no later search for cycles goes through it."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption(
        "--device",
        default="emulated",
        choices=("emulated", "cuda"),
        help="what the CUDA target's tests run on: the PTX emulator, or the first GPU",
    )


@pytest.fixture(scope="session")
def cuda_device(pytestconfig):
    """What the tests of the CUDA target run on; see --device."""
    if pytestconfig.getoption("device") == "cuda":
        from numbanet.cuda.driver import device as driver
        from numbanet.targets import cuda_device

        reason = driver.why_not()
        if reason is not None:
            pytest.skip(f"needs an NVIDIA GPU: {reason}")
        return cuda_device(0)
    pytest.importorskip("numba_cuda", reason="needs numba-cuda to compile for CUDA")
    from emulator.device import EmulatedDevice

    return EmulatedDevice()


@pytest.fixture(scope="session")
def assembler():
    """Skips where nothing assembles PTX."""
    from numbanet.cuda import errors
    from numbanet.cuda.toolchain import toolkit

    try:
        return toolkit.assembler_version()
    except errors.ToolkitMissingError as error:
        pytest.skip(f"needs nvJitLink or ptxas: {error}")


@pytest.fixture(scope="session")
def current_assembler(assembler):
    """Skips where machine code is not that of the toolkit the register budgets were made with."""
    if tuple(map(int, re.search(r"(\d+)\.(\d+)", assembler).groups())) < (13, 5):
        pytest.skip(f"needs the toolkit of CUDA 13.5 or newer, not {assembler}")
    return assembler


def pytest_configure(config):
    os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")
    if hasattr(config, "cache"):  # keeps compiled code beside pytest's cache, not in the user's
        kernels = config.cache.mkdir("kernels")
        kernels.chmod(0o700)  # a cache that others can write to is not used
        os.environ.setdefault("NUMBANET_CACHE_DIR", str(kernels))
