"""Jobs, one for each of n rays, samples or cells, on either target."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.target import CpuTarget
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.launch.threads import thread_number
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.memory import arrays
from numbanet.device import device
from numbanet.storage.views import View, views
from numbanet.target import AbstractTarget

# Types of a job's arrays, with which its parameters are annotated; its numbers are UInt or Float.
Floats, UInts, Ranges = View("float32"), View("uint32"), View("uint32", 2)
Rows = partial(View, "float32")  # Rows(n_columns)


class Job:
    """Work on ray, sample or cell i, written once: a loop on the CPU, a thread's on a GPU.

    Args:
        function: device code (i, *arguments); annotations say what the arguments are.
    """

    def __init__(self, function: Callable):
        kinds = tuple(function.__annotations__.values())
        types = (UInt, *(kind if isinstance(kind, str) else Address for kind in kinds))
        body, arrays_of = device(function), views(kinds)

        def on_host(n, *arguments):
            for i in prange(n):
                body(np.uint32(i), *arguments)

        def on_device(*arguments):
            i = thread_number()
            if i < arguments[0]:
                body(i, *arrays_of(arguments[1:]))

        on_host.__name__ = on_device.__name__ = function.__name__
        on_host.__qualname__ = on_device.__qualname__ = function.__qualname__
        self._on_host, self._on_device, self._types = ParallelKernel(on_host), on_device, types

    def __call__(self, target: AbstractTarget, n: int, *arguments: Any) -> None:
        """Queue the job on a target; arrays are the target's, numbers float or int."""
        if isinstance(target, CpuTarget):
            self._on_host(np.uint32(n), *map(as_scalar, arguments))
            return
        with target.device.lock:
            run = kernel_on(target.device, self._on_device, types=self._types)
            run.over(n, n, *(getattr(each, "address", each) for each in arguments))


@cache
def kernel_on(
    device: Any, function: Callable, block: int = BLOCK, types: tuple[str, ...] = ()
) -> Kernel:
    """Kernel of a device, made once."""
    return Kernel(device, function, block, argument_types=types)


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
