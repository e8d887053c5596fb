"""Matrix operations of optimizers on the CPU: float32 NumPy arrays in C order.

Another target has the same functions on its arrays. Work is done in the order of the calls.
Products are NumPy's: how they are rounded may depend on the number of threads that it uses.
"""

from collections.abc import Callable
from functools import cache

import numpy as np

from numbanet.kernel_cache import compile_cached


def view(array: np.ndarray, first: int, shape: tuple[int, ...]) -> np.ndarray:
    """View of the elements from `first` on, counted through the whole array, in another shape."""
    return array.reshape(-1)[first : first + int(np.prod(shape))].reshape(shape)


def empty(shape: tuple[int, ...]) -> np.ndarray:
    """Array for intermediate results."""
    return np.empty(shape, np.float32)


def product(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> None:
    """c <- a b, each optionally transposed."""
    with np.errstate(over="ignore", invalid="ignore"):  # a step that overflows is taken back
        np.matmul(a.T if transpose_a else a, b.T if transpose_b else b, out=c)


def norm_squared(array: np.ndarray, out: np.ndarray) -> None:
    """Write the sum of squares to out [1, 1]."""
    out[...] = np.vdot(array, array)


def trace(array: np.ndarray, out: np.ndarray) -> None:
    """Write the sum of the diagonal of a square matrix to out [1, 1]."""
    out[...] = np.trace(array)


def orthonormalize(array: np.ndarray) -> None:
    """Orthonormalise the columns of a square matrix by Gram-Schmidt.

    A matrix that is not finite, or has no independent columns, becomes the identity.
    """
    if not (np.isfinite(array).all() and array.any()):
        array[...] = np.eye(len(array))
        return
    q, r = np.linalg.qr(array)
    array[...] = q * np.where(np.diagonal(r) < 0, -1, 1).astype(np.float32)


def apply(function: Callable, *arrays: np.ndarray) -> None:
    """Call the device function (i, j, *arrays) for each row and column of the first array."""
    elementwise(function)(arrays[0].shape[0], arrays[0].shape[1], *arrays)


@cache
def elementwise(function: Callable):
    def elementwise(n_rows, n_columns, *arrays):
        for i in range(n_rows):
            for j in range(n_columns):
                function(i, j, *arrays)

    return compile_cached(elementwise, fastmath=True)


def when(flags: np.ndarray, index: int, body: Callable[[], None]) -> None:
    """Run `body` if flags[index] is not 0."""
    if flags[index] != 0:
        body()
