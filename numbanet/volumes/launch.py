"""Jobs, one for each of n rays, samples or cells, on either target."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.memory import arrays
from numbanet.target import AbstractTarget


@dataclass(frozen=True)
class Job:
    """Body that runs as a loop over arrays on the CPU, and as a thread's kernel on a GPU.

    Both take n first, then the same arguments in the same order.

    Args:
        host: a function of arrays with a `prange`.
        device: a function of addresses, annotated with their types.
    """

    host: ParallelKernel
    device: Callable

    def __call__(self, target: AbstractTarget, n: int, *arguments: Any) -> None:
        """Queue the job on a target; arrays are the target's, numbers float or int."""
        if isinstance(target, CpuTarget):
            self.host(np.uint32(n), *map(as_scalar, arguments))
            return
        with target.device.lock:
            run = kernel_on(target.device, self.device)
            run.over(n, n, *(getattr(each, "address", each) for each in arguments))


@cache
def kernel_on(device: Any, function: Callable, block: int = BLOCK) -> Kernel:
    """Kernel of a device, made once."""
    return Kernel(device, function, block)


def as_scalar(value: Any) -> Any:
    """Numbers in the kernels' types; arrays as they are."""
    if isinstance(value, float):
        return np.float32(value)
    return np.uint32(value) if isinstance(value, int) else value


def shape_of(array: Any) -> tuple[int, ...]:
    """Shape of an array, or of an array-like."""
    return tuple(array.shape) if hasattr(array, "shape") else np.shape(array)


def integers(target: AbstractTarget, *shape: int) -> Any:
    """New uint32 array of a target, uninitialised."""
    if isinstance(target, CpuTarget):
        return np.empty(shape, np.uint32)
    return arrays.empty(shape, np.uint32, target.device)


def zero_integers(target: AbstractTarget, *shape: int) -> Any:
    """New uint32 array of a target, of zeros."""
    array = integers(target, *shape)
    target.set_zero(array)
    return array
