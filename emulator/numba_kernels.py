"""numba.cuda kernels on the emulator: compiled to PTX without a GPU, called with NumPy arrays."""

import types as python_types
from functools import cache
from unittest import mock

import numpy as np
from numba import cuda
from numba.cuda import types

from emulator.ptx.memory import EmulatedMemory
from emulator.ptx.module import Module


@cache
def compile_ptx(function, signature, capability=(9, 0), fastmath=True):
    """PTX text of a Python function as a kernel; `signature` is a tuple of numba types."""
    device = python_types.SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        ptx, _ = cuda.compile(
            function,
            types.void(*signature),
            device=False,
            cc=capability,
            output="ptx",
            fastmath=fastmath,
            abi="numba",
        )
    return ptx


def type_of(value):
    """Numba type of an argument."""
    if isinstance(value, np.ndarray):
        element = getattr(types, value.dtype.name if value.dtype != bool else "boolean")
        layout = "C" if value.flags.c_contiguous else "A"
        return types.Array(element, value.ndim, layout)
    if isinstance(value, tuple):
        return types.Tuple([type_of(part) for part in value])
    return getattr(types, np.dtype(type(value)).name if isinstance(value, np.generic) else "int64")


def flatten(value, address_of):
    """An argument as numba passes it: per array seven or more parameters."""
    if isinstance(value, np.ndarray):
        head = [0, 0, value.size, value.itemsize, address_of(value)]
        return [*head, *value.shape, *value.strides]
    if isinstance(value, tuple):
        return [part for item in value for part in flatten(item, address_of)]
    return [value]


class Kernel:
    """`Kernel(function)(grid, block, *arguments)`; arrays are copied there and back."""

    def __init__(self, function, capability=(9, 0), fastmath=True):
        self.function, self.capability, self.fastmath = function, capability, fastmath
        self._modules = {}

    def module(self, *arguments):
        signature = tuple(type_of(argument) for argument in arguments)
        if signature not in self._modules:
            ptx = compile_ptx(self.function, signature, self.capability, self.fastmath)
            self._modules[signature] = Module(ptx, EmulatedMemory())
        return self._modules[signature]

    def __call__(self, grid, block, *arguments, **options):
        module = self.module(*arguments)
        memory, copies = module.memory, []

        def address_of(array):
            address = memory.allocate(array.nbytes)
            here = memory.view(address, array.dtype, array.size)
            here[:] = array.reshape(-1)
            copies.append((address, here, array))
            return address

        flat = [part for argument in arguments for part in flatten(argument, address_of)]
        try:
            module.launch(module.kernel_names[0], grid, block, flat, **options)
        finally:
            for address, here, array in copies:
                array[...] = here.reshape(array.shape)
                memory.free(address)
