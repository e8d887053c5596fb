"""Results of compiling and assembling a kernel."""

import re
import struct
from dataclasses import dataclass, field

OPCODE, NOP = 0xFFF, 0x918  # the lowest bits of an instruction are its opcode


@dataclass(frozen=True)
class PTX:
    """Text of a module with one kernel, and the kernel's name."""

    text: str = field(repr=False)
    name: str

    @property
    def n_instructions(self) -> int:
        """Number of instructions in the text, each counted once."""
        body = self.text[self.text.index("{\n", self.text.index(".entry")) :]
        return len(re.findall(r"^\s*(?:@!?%\w+\s+)?[a-z][\w.:]*[^;\n]*;", body, re.MULTILINE))


@dataclass(frozen=True)
class Resources:
    """Resources of a multiprocessor that one thread, or for shared memory one block, takes."""

    registers: int
    shared_bytes: int  # static, and the system's share
    spill_stores: int  # bytes
    spill_loads: int
    local_bytes: int


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel."""

    image: bytes = field(repr=False)
    name: str
    resources: Resources

    @property
    def n_instructions(self) -> int:
        """Number of machine instructions, each counted once, without trailing padding."""
        code = section(self.image, f".text.{self.name}")
        heads = [head & OPCODE for head, _ in struct.iter_unpack("<QQ", code)]
        while heads and heads[-1] == NOP:
            heads.pop()
        return len(heads)


def section(image: bytes, name: str) -> bytes:
    """Section of an ELF file, by its name."""
    (table,) = struct.unpack_from("<Q", image, 40)
    size, count, names = struct.unpack_from("<3H", image, 58)
    headers = [struct.unpack_from("<2I4Q", image, table + k * size) for k in range(count)]
    start = headers[names][4]
    for header in headers:
        first = start + header[0]
        if image[first : image.index(b"\0", first)].decode() == name:
            return image[header[4] : header[4] + header[5]]
    raise ValueError(f"there is no section {name}")
