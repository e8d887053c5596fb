"""Operations of instructions: a function of arrays, its sources and its destinations.

An array has one element per active lane, or a single one where all lanes have the same value.
"""

from collections.abc import Callable
from dataclasses import dataclass

from emulator.ptx.dtypes import DTYPES, FLOATS, HALVES
from emulator.ptx.errors import UnsupportedInstruction

DECODERS = {}


@dataclass
class Operation:
    function: Callable
    results: list  # [(operand, dtype)]
    sources: list
    flush: bool | None = None  # subnormals to zero; None where it makes no difference
    rounding: str = "rn"
    on_machine: bool = False  # takes the machine first, and has `prepare(unit, instruction)`


def decodes(*names, kind=None):
    """Register a decoder for instructions of some kind: "integer", "half", "float" or any."""

    def add(decoder):
        for name in names:
            DECODERS[name, kind] = decoder
        return decoder

    return add


def decode(instruction):
    name = instruction.name
    modifier = instruction.modifiers[-1] if instruction.modifiers else ""
    kind = "half" if modifier in HALVES else "float" if modifier in FLOATS else "integer"
    decoder = DECODERS.get((name, kind)) or DECODERS.get((name, None))
    if decoder is None:
        raise UnsupportedInstruction(f"unsupported instruction '{instruction.opcode}'")
    try:
        return decoder(instruction)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        message = f"unsupported form of instruction '{instruction.opcode}'"
        raise UnsupportedInstruction(message) from error


def plain(instruction, function, dtype=None, result=None, **options):
    """Operation whose sources have one type, and one result."""
    dtype = dtype or DTYPES[instruction.type]
    first, *rest = instruction.operands
    return Operation(function, [(first, result or dtype)], [(o, dtype) for o in rest], **options)


def allow(instruction, *modifiers):
    """Refuse modifiers that would change what the instruction does."""
    for modifier in instruction.modifiers[:-1]:
        if modifier not in modifiers:
            raise UnsupportedInstruction(f"unsupported .{modifier} in '{instruction.opcode}'")


def then(first, second):
    return lambda *arguments: second(first(*arguments))
