"""Atomics and reductions. Lanes take effect in one of the orders that hardware may take.

That is lane order, unless the launch draws another one.
"""

import numpy as np

from emulator.ptx.accesses import Access, element_type, memory_operand, parts_of
from emulator.ptx.dtypes import DTYPES, FLOATS, HALVES, S64
from emulator.ptx.floats import PACK, UNPACK, maximum, minimum
from emulator.ptx.operation import Operation, decodes

OPERATIONS = ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec")
UFUNCS = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
OTHERS = {
    "exch": lambda old, new: new,
    "cas": lambda old, compared, new: np.where(old == compared, new, old),
    "inc": lambda old, limit: np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, limit: np.where((old == 0) | (old > limit), limit, old - old.dtype.type(1)),
}


def function_of(operation, kind):
    if kind in HALVES:
        function = {"add": np.add, "min": minimum, "max": maximum}[operation]
        pack, unpack = PACK[kind], UNPACK[kind]
        return lambda old, value: pack(function(unpack(old), unpack(value)))
    if kind in FLOATS and operation in ("min", "max"):
        return minimum if operation == "min" else maximum
    return UFUNCS.get(operation) or OTHERS[operation]


def in_turns(index):
    """Positions of `index` in groups without repeated values, that keep the order per value."""
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    first = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    counts = np.diff(np.append(first, index.shape[0]))
    if counts.max() == 1:
        return [slice(None)]
    turn = np.arange(index.shape[0]) - np.repeat(first, counts)
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.split(by_turn, np.cumsum(np.bincount(turn))[:-1])


def apply(function, view, index, values, wants_old):
    """`view[i] = function(view[i], *values)` for one lane after the other."""
    if not wants_old and isinstance(function, np.ufunc):
        function.at(view, index, values[0])
        return None
    result = np.empty(index.shape[0], view.dtype)
    for lanes in in_turns(index):
        place = index[lanes]
        old = view[place]
        view[place] = function(old, *(value[lanes] for value in values))
        result[lanes] = old
    return result


class Atomic(Access):
    def __init__(self, operation, kind, space, offset, n_elements, result):
        super().__init__("atomic", space, offset, DTYPES[kind], n_elements)
        self.function = function_of(operation, kind)
        self.result = result
        self.wants_old = False

    def prepare(self, unit, instruction):
        super().prepare(unit, instruction)
        slots = instruction.slots_written
        self.wants_old = any(slot in unit.slots_read for slot in slots)

    def run(self, machine, space, address, *values):
        view, index = self.locate(machine, space, address)
        n = machine.n_active
        index = np.broadcast_to(index, n)
        values = [np.broadcast_to(value, n) for value in values]
        if machine.watches(space):
            machine.watch(self, space, view, index)
        order, turn = machine.launch.order, slice(None)
        if order is not None:
            turn = order.permutation(n)
            index, values = index[turn], [value[turn] for value in values]
        elements = view.view(self.dtype)
        results = []
        if self.n_elements == 1:
            results.append(apply(self.function, elements, index, values, self.wants_old))
        else:
            for k, value in enumerate(values):
                place = index * S64.type(self.n_elements) + S64.type(k)
                results.append(apply(self.function, elements, place, [value], self.wants_old))
        if not self.result:
            return None
        if not self.wants_old:
            results = [np.zeros(1, self.dtype)] * self.n_elements
        elif order is not None:
            results = [result[np.argsort(turn)] for result in results]
        return tuple(results) if self.n_elements > 1 else results[0]


@decodes("atom", "red")
def atomic(i):
    has_result = i.name == "atom"
    operation = next(m for m in i.modifiers if m in OPERATIONS)
    _, n_elements = element_type(i, operation)
    d = parts_of(i.operands[0]) if has_result else []
    address, *values = i.operands[has_result:]
    values = values[: 2 if operation == "cas" else 1]
    base, offset, space = memory_operand(i, address)
    access = Atomic(operation, i.type, space, offset, n_elements, has_result)
    # float32 sums flush subnormals in global memory, and not in shared memory
    flush = (space != "shared" and operation == "add") if i.type == "f32" else None
    sources = [(base, None), *((part, access.dtype) for v in values for part in parts_of(v))]
    return Operation(access, [(part, access.dtype) for part in d], sources, flush, on_machine=True)
