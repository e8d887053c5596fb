"""Arguments of kernels, packed once and changed in place."""

import ctypes
from collections.abc import Sequence

TYPES = {
    "uint64": ctypes.c_uint64,
    "int64": ctypes.c_int64,
    "uint32": ctypes.c_uint32,
    "int32": ctypes.c_int32,
    "float32": ctypes.c_float,
}


class Arguments:
    """The arguments of one kernel, in memory as the driver wants them.

    A launch copies them, so that they may change as soon as it returns.
    """

    def __init__(self, argument_types: Sequence[str], values: Sequence[float]):
        if len(argument_types) != len(values):
            raise TypeError(
                f"{len(values)} arguments for a kernel that takes {len(argument_types)}"
            )
        self.types = tuple(argument_types)
        self._cells = [TYPES[name]() for name in argument_types]
        self._pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, self._cells))
        self.address = ctypes.addressof(self._pointers)  # of an array of pointers to the arguments
        for i, value in enumerate(values):
            self[i] = value

    def __len__(self):
        return len(self._cells)

    def __getitem__(self, i: int) -> float:
        return self._cells[i].value

    def __setitem__(self, i: int, value: float):
        cell = self._cells[i]
        cell.value = value
        if cell.value != value and not isinstance(cell, ctypes.c_float):
            raise OverflowError(f"argument {i} is {value}, which {self.types[i]} cannot hold")

    def __repr__(self):
        return f"<arguments {[cell.value for cell in self._cells]}>"


def pack(argument_types: Sequence[str], values: Sequence[float]) -> Arguments:
    """Arguments for `launch`; the types are those that the kernel was compiled for.

    Raises:
        TypeError: there are more or fewer values than types, or a value is no number.
        OverflowError: an integer is too large for its type.
    """
    return Arguments(argument_types, values)
