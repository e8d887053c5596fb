"""Basic blocks as Python functions of NumPy arrays, generated when a block first runs.

A block's function takes the machine `S`. Registers that live across blocks are arrays in
`S.registers`, over all lanes or of one element where all lanes agree; inside a function they are
local variables that hold the active lanes only. Register arrays are never changed in place.
"""

import re

import numpy as np

from emulator.ptx import (
    accesses,
    atomics,
    conversions,
    float_mode,
    floats,
    integers,
    matrix,
    warp,
    warpgroup,
)
from emulator.ptx.comparisons import choose
from emulator.ptx.dtypes import FLOATS, PREDICATE, REGISTER_DTYPES, U32, U64, UNSIGNED, scalar
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.operation import decode
from emulator.ptx.syntax import Immediate, Negated, Register, Sink, Special, Symbol

DECODING_MODULES = (accesses, atomics, conversions, floats, integers, matrix, warp, warpgroup)
VARIABLE = re.compile(r"\b[vr]\d+\b")
FLUSHES_BY_CHOICE = ("add", "sub", "mul", "fma", "setp", "min", "max", "cvt")


def gather(array, selection):
    return array if array.shape[0] == 1 else array[selection]


def merge(old, new, selection, n_lanes):
    """`new` in the selected lanes, `old` elsewhere."""
    if old.shape[0] == 1:
        if new.shape[0] == 1 and old.tobytes() == new.tobytes():
            return old
        merged = np.empty(n_lanes, old.dtype)
        merged[:] = old
    else:
        merged = old.copy()
    merged[selection] = new
    return merged


class CompiledKernel:
    """Functions of a kernel's blocks, and the constants and functions that they name."""

    def __init__(self, program, addresses):
        self.program = program
        self.addresses = addresses  # of module variables
        self.names = {"gather": gather, "merge": merge, "choose": choose, "not_": np.logical_not}
        self.names |= {"set_flush": float_mode.set_flush, "set_rounding": float_mode.set_rounding}
        self._known = {}
        self._functions = [None] * len(program.blocks)
        self._instruction_of_line = [None] * len(program.blocks)
        self.number_of = {i: k for k, i in enumerate(program.instructions)}
        floats = [i for i in program.instructions if i.name in FLUSHES_BY_CHOICE]
        floats = [i for i in floats if i.modifiers and i.type in FLOATS]
        self.flush = 2 * sum(i.has("ftz") for i in floats) > len(floats)  # the mode between blocks
        read = [b.selector.slot for b in program.blocks if b.selector is not None]
        for instruction in program.instructions:
            read += instruction.slots_read
        self.slots_read = set(read)

    def function(self, number):
        if self._functions[number] is None:
            block = self.program.blocks[number]
            source, instructions = BlockWriter(self, block).write()
            exec(compile(source, f"<ptx block {number}>", "exec"), self.names)
            self._functions[number] = self.names["block"]
            self._instruction_of_line[number] = instructions
        return self._functions[number]

    def instruction_at(self, number, line):
        return self._instruction_of_line[number][line - 1]

    def name(self, value, key=None):
        """Global name for a constant or a function."""
        key = key or id(value)
        if key not in self._known:
            self._known[key] = f"k{len(self._known)}"
            self.names[self._known[key]] = value
        return self._known[key]

    def constant(self, array):
        return self.name(array, (array.dtype, array.tobytes()))

    def address(self, symbol):
        """Address of a symbol in the variable's own state space."""
        variable = symbol.variable
        offsets = {
            "shared": self.program.shared_offsets,
            "local": self.program.local_offsets,
            "param": self.program.parameter_offsets,
        }.get(variable.space, self.addresses)
        if variable not in offsets:
            raise UnsupportedInstruction(f"unsupported: .{variable.space} {variable.name} here")
        return offsets[variable] + symbol.offset


class BlockWriter:
    def __init__(self, unit, block):
        self.unit, self.block = unit, block
        self.types = unit.program.register_types
        self.lines = []  # (text, instruction)
        self.views = {}  # slot -> {dtype: variable}
        self.live_in = {}  # slot -> variable
        self.written = set()
        self.n_variables = 0
        self.flush = unit.flush
        self.instruction = None

    def emit(self, text):
        self.lines.append((text, self.instruction))

    def new(self, expression):
        self.n_variables += 1
        self.emit(f"v{self.n_variables}={expression}")
        return f"v{self.n_variables}"

    def dtype(self, dtype):
        return self.unit.name(dtype, dtype)

    # operands

    def read(self, operand, dtype):
        """Variable with the operand's value as `dtype`; None means an address."""
        if dtype is None:
            dtype = U64
            if isinstance(operand, Register):
                dtype = REGISTER_DTYPES[self.types[operand.slot]]
        elif isinstance(operand, Symbol) and operand.variable.space == "param":
            raise UnsupportedInstruction("unsupported: the address of a parameter")
        if isinstance(operand, Register):
            return self.read_register(operand.slot, dtype)
        if isinstance(operand, Immediate):
            return self.unit.constant(immediate(operand, dtype))
        if isinstance(operand, Symbol):
            return self.unit.constant(scalar(self.unit.address(operand), dtype))
        if isinstance(operand, Special):
            return self.new(f"S.special({operand.name!r}).astype({self.dtype(dtype)})")
        if isinstance(operand, Negated):
            return self.new(f"not_({self.read(operand.predicate, dtype)})")
        raise UnsupportedInstruction(f"unsupported operand {operand}")

    def read_register(self, slot, dtype):
        own = REGISTER_DTYPES[self.types[slot]]
        if slot not in self.views:
            self.live_in[slot] = f"r{slot}"
            self.views[slot] = {own: f"r{slot}"}
        views = self.views[slot]
        if dtype in views:
            return views[dtype]
        if PREDICATE in (own, dtype):
            raise UnsupportedInstruction("unsupported: a predicate as a number")
        if dtype.itemsize < own.itemsize:  # the low part
            bits = UNSIGNED[dtype.itemsize]
            whole = self.read_register(slot, UNSIGNED[own.itemsize])
            part = self.new(f"{whole}.astype({self.dtype(bits)})")
            return part if dtype == bits else self.new(f"{part}.view({self.dtype(dtype)})")
        if dtype.itemsize > own.itemsize:
            raise UnsupportedInstruction("unsupported: a register narrower than the type")
        views[dtype] = self.new(f"{next(iter(views.values()))}.view({self.dtype(dtype)})")
        return views[dtype]

    def write_register(self, operand, variable, dtype):
        if isinstance(operand, Sink):
            return
        slot = operand.slot
        own = REGISTER_DTYPES[self.types[slot]]
        if dtype.itemsize < own.itemsize:  # extend to the width of the register
            wide = np.dtype(f"{dtype.kind}{own.itemsize}")
            variable, dtype = self.new(f"{variable}.astype({self.dtype(wide)})"), wide
        if dtype.itemsize > own.itemsize or (dtype == PREDICATE) != (own == PREDICATE):
            raise UnsupportedInstruction("unsupported: a result of another width than its register")
        if self.instruction.predicate is not None:
            predicate, negated = self.instruction.predicate
            old = self.read_register(slot, dtype)
            pair = (old, variable) if negated else (variable, old)
            condition = self.read_register(predicate.slot, PREDICATE)
            variable = self.new(f"choose({condition},{pair[0]},{pair[1]})")
        self.views[slot] = {dtype: variable}
        self.written.add(slot)

    # instructions

    def write(self):
        for instruction in self.block.instructions:
            self.instruction = instruction
            if instruction.is_block_barrier:
                continue
            mark = len(self.lines)
            try:
                self.write_instruction(instruction)
            except UnsupportedInstruction as error:  # an error only where it is reached
                del self.lines[mark:]
                self.emit(f"S.unsupported({error.args[0]!r})")
                for slot in instruction.slots_written:
                    own = REGISTER_DTYPES[self.types[slot]]
                    self.views[slot] = {own: self.unit.constant(scalar(0, own))}
                    self.written.add(slot)
        return self.assemble(self.returned())

    def write_instruction(self, instruction):
        operation = decode(instruction)
        if operation.on_machine:
            operation.function.prepare(self.unit, instruction)
        sources = [self.read(operand, dtype) for operand, dtype in operation.sources]
        self.set_flush(operation.flush)
        if operation.rounding != "rn":
            self.emit(f"set_rounding({operation.rounding!r})")
        function = self.unit.name(operation.function)
        call = f"{function}({','.join(['S'] * operation.on_machine + sources)})"
        if not operation.results:
            self.emit(call)
            variables = []
        elif len(operation.results) == 1:
            variables = [self.new(call)]
        else:
            first = self.n_variables + 1
            self.n_variables += len(operation.results)
            variables = [f"v{k}" for k in range(first, self.n_variables + 1)]
            self.emit(f"{','.join(variables)}={call}")
        if operation.rounding != "rn":
            self.emit("set_rounding('rn')")
        for (operand, dtype), variable in zip(operation.results, variables, strict=True):
            self.write_register(operand, variable, dtype)

    def set_flush(self, flush):
        if flush is not None and flush != self.flush:
            self.emit(f"set_flush({flush})")
            self.flush = flush

    def returned(self):
        """Selector of the next block, or the scheduler's arguments at a barrier."""
        result = "None"
        if self.block.selector is not None:
            slot = self.block.selector.slot
            own = REGISTER_DTYPES[self.types[slot]]
            result = self.read_register(slot, PREDICATE if own == PREDICATE else U32)
        elif self.block.barrier is not None:
            self.instruction = self.block.barrier
            operands = self.instruction.operands
            predicate = "None"
            if self.instruction.has("red"):
                *operands, last = operands[1:]
                predicate = self.read(last, PREDICATE)
            numbers = [self.read(operand, U32) for operand in operands] or ["None"]
            result = f"({','.join([*numbers, 'None'][:2])},{predicate})"
        self.set_flush(self.unit.flush)
        return result

    def assemble(self, result):
        inputs = [(f"r{slot}", slot) for slot in self.live_in]
        outputs = []
        for slot in sorted(self.written):
            if self.block.live_out >> slot & 1:
                outputs.append((self.read_register(slot, REGISTER_DTYPES[self.types[slot]]), slot))
        kept = {*VARIABLE.findall(result), *(variable for variable, _ in outputs)}
        last_use = {}
        for k, (text, _) in enumerate(self.lines):
            last_use.update(dict.fromkeys(VARIABLE.findall(text), k))
        dead = {}
        for variable, k in last_use.items():
            if variable not in kept:
                dead.setdefault(k, []).append(variable)
        source = ["def block(S):", " R=S.registers;s=S.selection;N=S.n_lanes"]
        if inputs:
            source.append(" if s is None:" + ";".join(f"{v}=R[{slot}]" for v, slot in inputs))
            source.append(" else:" + ";".join(f"{v}=gather(R[{slot}],s)" for v, slot in inputs))
        where = [None] * len(source)
        for k, (text, instruction) in enumerate(self.lines):
            source.append(f" {text};del {','.join(dead[k])}" if k in dead else f" {text}")
            where.append(instruction)
        if outputs:
            source.append(" if s is None:" + ";".join(f"R[{slot}]={v}" for v, slot in outputs))
            merges = (f"R[{slot}]=merge(R[{slot}],{v},s,N)" for v, slot in outputs)
            source.append(" else:" + ";".join(merges))
        source.append(f" return {result}")
        where += [self.instruction] * (len(source) - len(where))
        return "\n".join(source), where


def immediate(operand, dtype):
    value, float_bits = operand
    if dtype.kind == "f":
        return scalar(operand.to_float(), dtype)
    if float_bits not in (0, 8 * dtype.itemsize):
        raise UnsupportedInstruction("unsupported: a float literal of another width")
    return scalar(value, dtype)
