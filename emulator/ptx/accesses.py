"""Loads, stores and asynchronous copies, with bounds and alignment checked for every lane."""

import numpy as np

from emulator.ptx.dtypes import DTYPES, S64, U8, U32, U64, WORDS, join, scalar
from emulator.ptx.errors import UnsupportedInstruction
from emulator.ptx.memory import HEAP_START, WINDOWS
from emulator.ptx.operation import Operation, decodes
from emulator.ptx.syntax import Symbol, Vector
from emulator.ptx.warp import collective

SPACES = ("global", "shared", "local", "const", "param")
NO_EFFECT = {  # caching and ordering: execution is sequentially consistent here
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "weak", "relaxed", "acquire"),
    *("release", "acq_rel", "sc", "cta", "cluster", "gpu", "sys", "noftz"),
}
ADDRESS_MASK = (1 << 64) - 1


class Access:
    """Memory instruction, with the allocation that it found last."""

    by_warpgroup = False  # whether four warps together access what their first lane stands for

    def __init__(self, kind, space, offset, dtype, n_elements=1):
        self.kind = kind  # "load", "store", "atomic" or "copy"
        self.space = space
        self.offset = offset
        self.dtype = dtype
        self.n_elements = n_elements
        self.n_bytes = dtype.itemsize * n_elements
        self.word = dtype if n_elements == 1 else WORDS[self.n_bytes]
        self.shift = S64.type(self.n_bytes.bit_length() - 1)
        self.memory = None

    def prepare(self, unit, instruction):
        self.instruction = instruction
        self.number = unit.number_of[instruction]

    def __call__(self, machine, address, *values):
        if self.space != "generic":
            return self.run(machine, self.space, address, *values)
        spaces = (address >= U64.type(WINDOWS["shared"])).astype(U8)
        spaces += address >= U64.type(WINDOWS["local"])
        pieces = []
        for k, space in enumerate(("global", "shared", "local")):
            here = spaces == k
            inside = address - U64.type(WINDOWS.get(space, 0))
            if here.all():
                return self.run(machine, space, inside, *values)
            if here.any():
                with machine.only(here):
                    parts = (value if value.shape[0] == 1 else value[here] for value in values)
                    pieces.append((here, self.run(machine, space, inside[here], *parts)))
        if pieces[0][1] is None:
            return None
        rows = [np.empty(machine.n_active, self.dtype) for _ in range(self.n_elements)]
        for here, result in pieces:
            for row, part in zip(rows, result if self.n_elements > 1 else [result], strict=True):
                row[here] = part
        return tuple(rows) if self.n_elements > 1 else rows[0]

    def run(self, machine, space, address, *values):
        view, index = self.locate(machine, space, address)
        if self.kind == "load":
            if machine.watches(space):
                machine.watch(self, space, view, index)
            value = view.take(index)
            if self.n_elements == 1:
                return value
            return tuple(
                np.ascontiguousarray(value.view(self.dtype).reshape(-1, self.n_elements).T)
            )
        value = values[0] if self.n_elements == 1 else join(values, self.word)
        if machine.watches(space):
            machine.watch(self, space, view, index, value)
        view[index] = value if index.shape[0] > 1 else value[-1:]  # the last lane wins
        return None

    # where

    def locate(self, machine, space, address):
        """Array and element indices of the addresses in a state space."""
        if space == "global":
            return self.locate_global(machine, address.astype(U64, copy=False))
        if space == "param":
            return self.locate_parameter(machine, address)
        area = machine.shared if space == "shared" else machine.local
        where = address.view(S64) if address.dtype == U64 else address.astype(S64)
        if self.offset:
            where = where + self.offset
        if not within(where, self.n_bytes, area.n_bytes):
            area.fault(machine, where, self.n_bytes)
        index = where >> self.shift
        return area.view(self.word), index + area.first_element(machine, self.n_bytes)

    def locate_global(self, machine, address):
        memory = machine.memory
        if self.memory is memory and self.version == memory.version:
            index = self.in_allocation(address)
            if index is not None:
                return self.allocation.view(self.word), index
        allocation = memory.find(int(address[0]) + self.offset & ADDRESS_MASK)
        if allocation is not None:
            self.memory, self.version, self.allocation = memory, memory.version, allocation
            self.start = U64.type(allocation.address - self.offset & ADDRESS_MASK)
            index = self.in_allocation(address)
            if index is not None:
                return allocation.view(self.word), index
        address = address + U64.type(self.offset & ADDRESS_MASK)
        if not memory.holds(address, self.n_bytes):
            memory.check(address, self.n_bytes, self.n_bytes, machine.lane_name)
        return memory.whole(self.word), (address - U64.type(HEAP_START)).view(S64) >> self.shift

    def in_allocation(self, address):
        """Element indices in the allocation found last, or None."""
        distance = (address - self.start).view(S64)
        if within(distance, self.n_bytes, self.allocation.n_bytes):
            return distance >> self.shift
        return None

    def locate_parameter(self, machine, address):
        where = address.astype(S64) + self.offset
        if not within(where, self.n_bytes, machine.parameters.shape[0]):
            raise UnsupportedInstruction("parameter memory is read outside of its bounds")
        return machine.parameters[int(where[0]) :][: self.n_bytes].view(self.word), scalar(0, S64)


def within(where, n_bytes, end):
    """Whether all accesses of `n_bytes` bytes are aligned and lie in [0, end)."""
    union = int(np.bitwise_or.reduce(where))  # not below any of them
    if union & (n_bytes - 1) or union < 0:
        return False
    return union + n_bytes <= end or int(where.max()) + n_bytes <= end


# decoding


def memory_operand(i, operand):
    """(address operand, offset, space) of `[base + offset]`."""
    space = next((m.split("::")[0] for m in i.modifiers if m.split("::")[0] in SPACES), "generic")
    base, offset = operand
    if isinstance(base, Symbol) and space == "generic":
        space = base.variable.space
    return base, offset, "global" if space == "const" else space


def element_type(i, *allowed):
    """(dtype, number of elements) of a memory instruction; refuses other modifiers."""
    n_elements = 1
    for modifier in i.modifiers[:-1]:
        word = modifier.split("::")[0]
        if modifier in ("v2", "v4", "v8"):
            n_elements = int(modifier[1:])
        elif word not in (*SPACES, *NO_EFFECT, *allowed, "L1", "L2"):
            raise UnsupportedInstruction(f"unsupported .{modifier} in '{i.opcode}'")
    return DTYPES[i.type], n_elements


def parts_of(operand):
    return operand.parts if isinstance(operand, Vector) else [operand]


@decodes("ld")
def load(i):
    dtype, n_elements = element_type(i)
    d, address, *_ = i.operands
    base, offset, space = memory_operand(i, address)
    access = Access("load", space, offset, dtype, n_elements)
    results = [(part, dtype) for part in parts_of(d)]
    return Operation(access, results, [(base, None)], on_machine=True)


@decodes("st")
def store(i):
    dtype, n_elements = element_type(i)
    address, value, *_ = i.operands
    base, offset, space = memory_operand(i, address)
    access = Access("store", space, offset, dtype, n_elements)
    sources = [(base, None), *((part, dtype) for part in parts_of(value))]
    return Operation(access, [], sources, on_machine=True)


# asynchronous copies


class AsyncCopy:
    """Copy from global to shared memory; the data lands when the copying thread waits for it."""

    def __init__(self, destination, source):
        self.destination, self.source = destination, source

    def prepare(self, unit, instruction):
        self.destination.prepare(unit, instruction)
        self.source.prepare(unit, instruction)

    def __call__(self, machine, destination, source, n_bytes=None):
        access = self.destination
        view, index = access.locate(machine, "shared", destination)
        data = np.zeros(machine.n_active, access.word)
        copied = np.ones(machine.n_active, bool)
        if n_bytes is not None:
            copied &= n_bytes != 0
        if copied.any():
            with machine.only(copied):
                address = source if source.shape[0] == 1 else source[copied]
                data[copied] = self.source.run(machine, "global", address)
        if n_bytes is not None:  # of a part, all is read, and the rest is zeros
            each_byte = data.view(np.uint8).reshape(-1, access.n_bytes)
            each_byte *= np.arange(access.n_bytes) < n_bytes[:, None]
        if machine.watches("shared"):
            machine.watch(access, "shared", view, index, data)
        machine.copies.issue(machine, view, np.broadcast_to(index, data.shape), data)


class PendingCopies:
    """Asynchronous copies in flight, by the group of the lane that issued them."""

    def __init__(self, n_lanes):
        self.group = np.zeros(n_lanes, np.int64)  # groups that each lane has committed
        self.pending = []  # (lanes, groups, view, index, data)

    def issue(self, machine, view, index, data):
        lanes = machine.active_lanes()
        self.pending.append((lanes, self.group[lanes], view, index, data))

    def commit(self, machine):
        self.group[machine.active_lanes()] += 1

    def wait(self, machine, n_groups):
        """Land the copies of the active lanes, but for the last `n_groups` groups of each."""
        here = np.zeros(machine.n_lanes, bool)
        here[machine.active_lanes()] = True
        left = []
        for lanes, groups, view, index, data in self.pending:
            done = here[lanes]
            if n_groups is not None:
                done = done & (groups < self.group[lanes] - n_groups)
            view[index[done]] = data[done]
            machine.land(index[done], data.dtype.itemsize, lanes[done])
            if not done.all():
                parts = (part[~done] for part in (lanes, groups))
                left.append((*parts, view, index[~done], data[~done]))
        self.pending = left


@decodes("cp")
def copy(i):
    if i.modifiers[0] != "async" or "mbarrier" in i.modifiers or "bulk" in i.modifiers:
        raise UnsupportedInstruction(f"unsupported instruction '{i.opcode}'")
    if i.modifiers[1] == "commit_group":
        return collective(lambda machine, opcode: machine.copies.commit(machine))
    if i.modifiers[1] in ("wait_group", "wait_all"):
        n_groups = i.operands[0].value if i.operands else None
        return collective(lambda machine, opcode: machine.copies.wait(machine, n_groups))
    destination, source, size, *rest = i.operands
    word = WORDS[size.value]
    if i.has("L2::cache_hint"):
        rest = rest[:-1]
    addresses = [(operand.base, None) for operand in (destination, source)]
    function = AsyncCopy(
        Access("copy", "shared", destination.offset, word),
        Access("load", "global", source.offset, word),
    )
    return Operation(function, [], [*addresses, *((r, U32) for r in rest)], on_machine=True)
