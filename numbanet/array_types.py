"""Array types: of arguments, and of results."""

# pyright: reportReturnType=false
# Methods of protocols have a docstring and no body.

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike as NumpyArrayLike


@runtime_checkable
class Array(Protocol):
    """Array that models return: NumPy's on the CPU, one in the GPU's memory on a GPU.

    Both are in C order, and float32 but where it says otherwise. `numpy.asarray` makes a NumPy
    array of either; other libraries take them without a copy (`torch.from_dlpack`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each dimension."""

    @property
    def dtype(self) -> np.dtype:
        """NumPy's type of its elements."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""

    @property
    def size(self) -> int:
        """Number of elements."""

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""

    def __len__(self) -> int:
        """Length along the first dimension."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Row or slice of rows, in the same memory; NumPy's arrays allow more."""

    def reshape(self, *shape: int) -> Any:
        """Same elements, in the same memory, with another shape."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        """NumPy array of the values; on a GPU they are waited for and copied."""

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, **more: Any) -> Any:
        """DLPack capsule of the same memory, for another library."""

    def __dlpack_device__(self) -> tuple[int, int]:
        """Device of the memory, in DLPack's numbering."""


@runtime_checkable
class SupportsDlpack(Protocol):
    """An array of any library that hands over its memory by DLPack."""

    def __dlpack__(self) -> Any:
        """DLPack capsule of the memory."""

    def __dlpack_device__(self) -> tuple[Any, Any]:
        """Device of the memory."""


#: What models take: real numbers of any type and library, also nested lists; on a GPU best what
#: lies there already.
ArrayLike: TypeAlias = NumpyArrayLike | Array | SupportsDlpack
