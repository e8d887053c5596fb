"""Kernel with its packed arguments, ready to be launched."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from numbanet.cuda.driver.arguments import pack
from numbanet.cuda.launch.types import types_of


def exclusive(method: Callable) -> Callable:
    """Decorator that locks the device: engines share its stream, kernels and arguments."""

    @wraps(method)
    def locked(self, *arguments, **options):
        with self._device.lock:
            return method(self, *arguments, **options)

    return locked


BLOCK = 128  # threads, where one thread is one sample or one number


class Kernel:
    """Kernel on a device; its arguments are packed once and changed in place.

    Args:
        device: a CudaDevice, or anything with its methods.
        function: the work of one thread, annotated with the types of its arguments; see types.py.
        block: threads per block.
        shared_bytes: shared memory that a block asks for.
        max_registers: the most that a thread may use.
        argument_types: instead of annotations.
        n_resident: blocks that a multiprocessor is to run at a time; what memory these do not need
            becomes first-level cache.
    """

    def __init__(
        self,
        device: Any,
        function: Callable,
        block: int = BLOCK,
        shared_bytes: int = 0,
        max_registers: int | None = None,
        n_resident: int | None = None,
        argument_types: tuple[str, ...] = (),
    ):
        self._device = device
        argument_types = argument_types or types_of(function)
        self._kernel = device.build(function, argument_types, block, max_registers)
        if n_resident is not None:
            device.share_cache(self._kernel, n_resident, shared_bytes)
        self._arguments = pack(argument_types, [0] * len(argument_types))
        self.block, self.shared_bytes = block, shared_bytes

    def __call__(self, grid: int | tuple[int, ...], *values: float) -> None:
        """Queue the kernel on a grid of blocks."""
        device, arguments = self._device, self._arguments
        with device.lock:  # which not all callers hold
            arguments.assign(values)
            device.launch(self._kernel, grid, self.block, self.shared_bytes, arguments)

    def over(self, n: int, *values: float) -> None:
        """Queue the kernel with a thread for each of n numbers."""
        self(-(-n // self.block), *values)
