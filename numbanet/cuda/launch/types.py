"""Types of kernels' arguments, with which their parameters are annotated."""

from collections.abc import Callable

Address, UInt, UInt64, Float = "uint64", "uint32", "uint64", "float32"


def types_of(kernel: Callable) -> tuple[str, ...]:
    """Types of a kernel's arguments, by the names of driver/arguments.py."""
    return tuple(kernel.__annotations__.values())
