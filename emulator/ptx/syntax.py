"""Elements of a PTX module: kernels, variables, instructions and their operands."""

import struct
from dataclasses import dataclass, field
from typing import NamedTuple


class Register(NamedTuple):
    slot: int


class Special(NamedTuple):
    name: str


class Immediate(NamedTuple):
    value: int
    float_bits: int = 0  # 32 or 64 for a float, whose bits `value` holds

    def to_float(self):
        if not self.float_bits:
            return float(self.value)
        raw = self.value.to_bytes(self.float_bits // 8, "little")
        return struct.unpack("<f" if self.float_bits == 32 else "<d", raw)[0]


class Symbol(NamedTuple):
    variable: "Variable"
    offset: int = 0


class Name(NamedTuple):  # a label or a branch table
    text: str


class Memory(NamedTuple):
    base: object
    offset: int


class Vector(NamedTuple):
    parts: list


class Negated(NamedTuple):
    predicate: Register


class Pair(NamedTuple):
    first: object
    second: object


class Sink(NamedTuple):
    name: str = "_"


class Label(NamedTuple):
    name: str
    is_branch: bool = False


@dataclass(eq=False)
class Variable:
    name: str
    space: str
    type: str
    alignment: int
    n_bytes: int  # 0: dynamic shared memory
    initial: list = field(default_factory=list)


@dataclass(eq=False)
class Instruction:
    opcode: str
    operands: list
    predicate: tuple | None  # (Register, negated)
    line: int
    text: str

    def __post_init__(self):
        self.name, *self.modifiers = self.opcode.split(".")

    @property
    def type(self):
        return self.modifiers[-1]

    @property
    def is_branch(self):
        return self.name in ("bra", "brx")

    @property
    def is_block_barrier(self):
        return self.name in ("bar", "barrier") and not {"warp", "cluster"} & {*self.modifiers}

    def has(self, modifier):
        return modifier in self.modifiers


@dataclass(eq=False)
class Kernel:
    name: str
    parameters: list
    limits: dict  # .maxntid and .reqntid
    body: list = field(default_factory=list)  # Instruction and Label
    register_types: list = field(default_factory=list)
    variables: list = field(default_factory=list)
