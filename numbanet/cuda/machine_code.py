"""What compiling and assembling a kernel give."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class PTX:
    """The text of a module with one kernel, and the kernel's name."""

    text: str = field(repr=False)
    name: str


@dataclass(frozen=True)
class Resources:
    """What one thread, or for shared memory one block, takes of a multiprocessor."""

    registers: int
    shared_bytes: int  # static, and what the system takes of it
    spill_stores: int  # bytes
    spill_loads: int
    local_bytes: int


@dataclass(frozen=True)
class Cubin:
    """The machine code of one kernel."""

    image: bytes = field(repr=False)
    name: str
    resources: Resources
