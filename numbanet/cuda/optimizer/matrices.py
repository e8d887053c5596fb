"""Matrix operations of optimizers on CUDA: the functions of cpu/operations.py.

Matrices are those of a network's layers and their covariances, so that a thread for each element
of a product is enough. `when` reads a number back, and so waits for the device.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.memory import arrays
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.optimizer.matrix_kernels import (
    apply_kernel,
    norm_squared_kernel,
    orthonormalize_kernel,
    product_kernel,
    trace_kernel,
)


class Operations:
    """Operations on float32 arrays of a device, queued in the order of the calls."""

    def __init__(self, device: Any):
        self._device = device
        self._kernels = {}
        self._norm = Kernel(device, norm_squared_kernel)

    def _kernel(self, function: Callable) -> Kernel:
        if function not in self._kernels:
            self._kernels[function] = Kernel(self._device, function)
        return self._kernels[function]

    def view(self, array: DeviceArray, first: int, shape: tuple[int, ...]) -> DeviceArray:
        """View of the elements from `first` on, counted through the array, in another shape."""
        n = int(np.prod(shape))
        return array.reshape(array.size)[first : first + n].reshape(*shape)

    def empty(self, shape: tuple[int, ...]) -> DeviceArray:
        """Array for intermediate results."""
        return arrays.empty(shape, np.float32, self._device)

    def product(
        self,
        a: DeviceArray,
        b: DeviceArray,
        c: DeviceArray,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        """c <- a b, each optionally transposed."""
        depth = a.shape[0] if transpose_a else a.shape[1]
        kernel = self._kernel(product_kernel(transpose_a, transpose_b))
        kernel.over(c.size, a.address, b.address, c.address, *c.shape, depth)

    def norm_squared(self, array: DeviceArray, out: DeviceArray) -> None:
        """Write the sum of squares to out [1, 1]."""
        self._norm(1, array.address, array.size, out.address)

    def trace(self, array: DeviceArray, out: DeviceArray) -> None:
        """Write the sum of the diagonal of a square matrix to out [1, 1]."""
        self._kernel(trace_kernel)(1, array.address, array.shape[0], out.address)

    def orthonormalize(self, array: DeviceArray) -> None:
        """Orthonormalise the columns of a square matrix by Gram-Schmidt, in one block."""
        self._kernel(orthonormalize_kernel)(1, array.address, array.shape[0])

    def apply(self, function: Callable, *matrices: DeviceArray) -> None:
        """Call the device function (i, j, *arrays) for each row and column of the first array."""
        shapes = tuple(matrix.shape for matrix in matrices)
        kernel = self._kernel(apply_kernel(function, shapes))
        kernel.over(matrices[0].size, *(matrix.address for matrix in matrices))

    def when(self, flags: DeviceArray, index: int, body: Callable[[], None]) -> None:
        """Run `body` if flags[index] is not 0."""
        if flags[index : index + 1].numpy()[0] != 0:
            body()
