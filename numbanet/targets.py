"""Targets by the name of a device and a precision."""

import ctypes
import os
import platform
import re
from functools import cache
from typing import Any

from numbanet.communicator import Communicator
from numbanet.shown import shown
from numbanet.target import AbstractTarget

PRECISIONS = ("float32", "float16", "bfloat16")
DEVICES = "'auto', 'cpu', 'cuda' or 'cuda:N'"


def target_for(
    device: Any = "auto",
    precision: str | None = None,
    fused: bool | None = None,
    n_ranks: int = 1,
) -> AbstractTarget:
    """Target of a device.

    Args:
        device: "auto" (a GPU where there is one that can be used, otherwise the CPU), "cpu",
            "cuda", "cuda:1", or an object with the methods of cuda/driver/device.py's CudaDevice.
        precision: of the parameters that the kernels read; None for float32 on the CPU and float16
            on a GPU.
        fused: whether encoding and network become one kernel on a GPU: None where that is possible,
            True for an error where it is not, False for a chain of kernels.
        n_ranks: that train together.

    Raises:
        ValueError: there is no such device or precision, or the CPU does not offer the choice.
        RuntimeError: the device cannot be used; the message says why.
    """
    if precision is not None and precision not in PRECISIONS:
        allowed = ", ".join(PRECISIONS)
        raise ValueError(f"precision {shown(precision)} does not exist; use {allowed}")
    if isinstance(device, str):
        device = find_device(device)
    elif not callable(getattr(device, "launch", None)):
        raise ValueError(f"device {shown(device)} is no device; use {DEVICES}")
    if device is not None:
        from numbanet.cuda.target import CudaTarget

        if n_ranks == 1:
            return CudaTarget(device, precision or "float16", fused)
        from numbanet.cuda.ranks.shared_memory import memory_of_rank

        return CudaTarget(device, precision or "float16", fused, memory_of_rank)
    if precision not in (None, "float32"):
        raise ValueError(f"precision {shown(precision)} needs CUDA; on the CPU use 'float32'")
    if fused is not None:
        raise ValueError(f"fused={shown(fused)} needs CUDA; on the CPU use None")
    from numbanet.cpu.target import CpuTarget

    return CpuTarget()


def find_device(name: str) -> Any:
    """GPU that a name denotes; None for the CPU."""
    if name == "cpu":
        return None
    if name == "auto":
        if not has_driver():
            return None
        from numbanet.cuda.driver import device as driver

        return cuda_device(0) if driver.is_available() else None
    found = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if not found:
        raise ValueError(f"device {shown(name)} does not exist; use {DEVICES}")
    return cuda_device(int(found[1] or 0))


def device_of_rank(device: Any, comm: Communicator) -> Any:
    """Device of one of several ranks for "auto" and "cuda": of a host's GPUs, one for each rank.

    A launcher may already have shown each process one GPU alone.

    Raises:
        RuntimeError: a host has fewer GPUs than ranks.
    """
    if comm.size == 1 or device not in ("auto", "cuda"):
        return device
    here = f"{platform.node()}/{os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
    places = comm.gather_text(here)
    if device == "auto" and not has_driver():
        return device
    from numbanet.cuda.driver import device as driver

    if device == "auto" and not driver.is_available():
        return device
    n = places.count(here)
    if (reason := driver.why_not(n - 1)) is not None:
        raise RuntimeError(
            f"{n} ranks were started on {platform.node()}, and each needs a GPU of its own: "
            f"{reason}; start as many as there are, or use device='cpu'"
        )
    return f"cuda:{places[: comm.rank].count(here)}"


@cache
def has_driver() -> bool:
    """Whether NVIDIA's driver is installed; imports nothing that uses it."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@cache
def cuda_device(ordinal: int) -> Any:
    """GPU with this number, of which a process has one object."""
    from numbanet.cuda.driver.device import CudaDevice

    return CudaDevice(ordinal)
