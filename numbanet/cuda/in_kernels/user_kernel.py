"""Kernels of users, compiled for the types of their arguments, arrays included."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.cuda.driver.arguments import TYPES, pack
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.memory.dlpack import BFLOAT16
from numbanet.cuda.memory.inputs import is_c_order, on_gpu


class UserKernel:
    """Kernel on a device, compiled when it is first called with arguments of new types.

    Args:
        device: a CudaDevice, or anything with its methods.
        function: the work of one thread, as for `numba.cuda.jit`.
        block: threads of a block in each dimension.
        shared_bytes: dynamic shared memory of a block.
    """

    def __init__(self, device: Any, function: Callable, block: tuple[int, ...], shared_bytes: int):
        self._device, self._function = device, function
        self.block, self.shared_bytes = block, shared_bytes

    def __call__(self, grid: int | tuple[int, ...], *arguments: Any) -> None:
        """Queue the kernel on a grid of blocks.

        Args:
            grid: the number of blocks, in up to three dimensions.
            arguments: arrays on the device, of any library and in C order; and numbers. A Python
                int is an int64 in the kernel, a float is a float32.

        Raises:
            TypeError: an argument is none of these.
            DeviceCodeError: the function, or one that it calls, is not valid device code.
            LaunchError: see CudaDevice.launch.
        """
        names, scalars = [], []
        for i, value in enumerate(arguments):
            name, parts = parameter(value, f"argument {i}", self._device)
            names.append(name)
            scalars += parts
        device, n_threads = self._device, math.prod(self.block)
        grid = int(grid) if isinstance(grid, np.integer) else grid
        with device.lock:
            kernel = device.build(self._function, tuple(names), n_threads)
            packed = pack(*zip(*scalars, strict=True)) if scalars else pack((), ())
            device.launch(kernel, grid, self.block, self.shared_bytes, packed)


def parameter(value: Any, name: str, device: Any) -> tuple[str, list[tuple[str, float]]]:
    """Type of a kernel's argument, and its scalars with their types."""
    if isinstance(value, np.generic) and value.dtype.name in TYPES:
        return value.dtype.name, [(value.dtype.name, value.item())]
    if isinstance(value, (int, np.integer)):
        return "int64", [("int64", int(value))]
    if isinstance(value, (float, np.floating)):
        return "float32", [("float32", float(value))]
    return array_parameter(value, name, device)


def array_parameter(value, name, device) -> tuple[str, list[tuple[str, float]]]:
    if isinstance(value, DeviceArray) and value.device is device:
        shape, dtype, address = value.shape, value.dtype, value.address
    else:
        found = on_gpu(value, name, device)
        if found is None:
            raise TypeError(
                f"{name}: expected a number, or an array on {device!r}, got {value!r:.80}; "
                "model.target.from_host() copies a NumPy array there"
            )
        if not is_c_order(found):
            raise TypeError(f"{name}: expected an array in C order, without gaps")
        dtype = np.dtype("u2" if found.dtype == BFLOAT16 else found.dtype)
        shape, address = found.shape, found.address
    if dtype.kind not in "fiu" or not shape:
        raise TypeError(f"{name}: no kernel takes an array of {dtype} with shape {list(shape)}")
    strides = [dtype.itemsize * math.prod(shape[k + 1 :]) for k in range(len(shape))]
    brackets = ", ".join([":"] * (len(shape) - 1) + ["::1"])
    # As Numba lays an array out: owners, which kernels do not need, sizes, address, shape, strides.
    owners, sizes = [("uint64", 0)] * 2, [math.prod(shape), dtype.itemsize]
    scalars = [*sizes, address, *shape, *strides]
    return f"{dtype.name}[{brackets}]", [*owners, *(("int64", each) for each in scalars)]
