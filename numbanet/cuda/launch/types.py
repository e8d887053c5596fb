"""Types of kernels' arguments, said once: the parameters are annotated with them."""

from collections.abc import Callable

Address, UInt, UInt64, Float = "uint64", "uint32", "uint64", "float32"


def types_of(kernel: Callable) -> tuple[str, ...]:
    """The types of a kernel's arguments, by the names of driver/arguments.py."""
    return tuple(kernel.__annotations__.values())
