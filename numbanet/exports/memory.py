"""State of a translation: statements written, and known contents of arrays and variables."""

from __future__ import annotations

from typing import Any

from numbanet.exports.arithmetic import Arithmetic, constant
from numbanet.exports.program import (
    BOOL,
    F32,
    F64,
    I64,
    U32,
    Array,
    Assign,
    Declare,
    Let,
    Store,
    Value,
)  # fmt: skip
from numbanet.exports.views import Untranslatable, View

UNDEFINED = object()  # value of a variable on paths that do not assign it


class Memory(Arithmetic):
    """Current block, existing arrays, and their contents where known."""

    def __init__(self, rounds: bool = False):
        self.rounds, self.rounded = rounds, {}
        self.block: list = []
        self.declared: list[Declare] = []  # variables that branches assign
        self.arrays: list[Array] = []
        self.contents: dict[Array, dict[int, Value]] = {}  # known contents
        self.touched: set[Array] = set()
        self.settled: set[Array] = set()  # arrays whose type is decided
        self.known: list[dict] = [{}]  # values by operation, of this block and those around it
        self.arrays_may_exist = True

    def emit(self, op, type, args, low=None, high=None) -> Value:
        if type == F64:
            raise Untranslatable("float64; write np.float32(...) around each Python float")
        key = (
            op,
            type,
            *(a.args if isinstance(a, Value) and a.is_constant else id(a) for a in args),
        )
        key = (*key, *(a.type for a in args if isinstance(a, Value)))
        if op != "load":
            for known in self.known:
                if key in known:
                    return known[key]
        value = Value(op, type, args, low, high)
        self.block.append(Let(value))
        self.known[-1][key] = value
        return value

    def variable(self, type: str, low=None, high=None) -> Value:
        return Value("variable", type, (), low, high)

    def within(self, block: list, action) -> list:
        """Make the action write to another block."""
        before, self.block = self.block, block
        self.known.append({})
        try:
            action()
        finally:
            self.block = before
            self.known.pop()
        return block

    def truth(self, value) -> Value:
        if not isinstance(value, Value):
            return constant(BOOL, bool(value))
        return self.cast(value, BOOL)

    def new_array(self, length: int) -> View:
        array = Array(f"a{len(self.arrays)}", length)
        self.arrays.append(array)
        self.contents[array] = {}
        return View(array, constant(I64, 0), constant(I64, length))

    def load(self, view: View, index: Value) -> Value:
        """Element of a view, as a number of the view's type."""
        place = self.binary("add", I64, self.cast(view.first, I64), self.cast(index, I64))
        if view.array is None:
            low = self.cast(place, U32)
            return self.emit("parameter", F32, (low,))
        array = view.array
        if place.is_constant and not 0 <= place.value < array.length:
            raise Untranslatable(f"index {place.value} of an array of {array.length} numbers")
        if array.name == "x" and place.is_constant:
            value = self.emit("input", F32, (self.cast(place, U32),))
        elif place.is_constant and not array.is_stored:
            value = self.contents[array].get(place.value)
            if value is None:  # never written: any number will do
                value = constant(F32, 0.0)
        else:
            self.store_contents(array)
            self.touched.add(array)
            value = self.emit("load", array.type, (array, self.cast(place, U32)))
        return self.as_type(value, view.type)

    def as_type(self, value: Value, type: str) -> Value:
        if value.type == type:
            return value
        return self.float_bits(value) if type == U32 else self.bits_to_float(value)

    def store(self, view: View, index: Value, value: Value) -> None:
        array = view.array
        if array is None or array.name == "x":
            raise Untranslatable("a forward pass that writes to its inputs or parameters")
        place = self.binary("add", I64, self.cast(view.first, I64), self.cast(index, I64))
        if place.is_constant and not 0 <= place.value < array.length:
            raise Untranslatable(f"index {place.value} of an array of {array.length} numbers")
        self.touched.add(array)
        if place.is_constant and not array.is_stored:
            self.contents[array][place.value] = value
            return
        self.store_contents(array)
        value = self.as_type(value, array.type)
        self.block.append(Store(array, self.cast(place, U32), value))

    def store_contents(self, array: Array) -> None:
        """Store an array's known contents, so that it exists at run time."""
        if array.is_stored or array.name == "x":
            return
        if not self.arrays_may_exist:
            raise Untranslatable("an index that is known only at run time")
        array.is_stored = True
        contents, self.contents[array] = self.contents[array], {}
        kinds = {value.type for value in contents.values()}
        if array not in self.settled and kinds == {U32}:
            array.type = U32
        self.settled.add(array)
        self._write(array, contents)

    def _write(self, array: Array, contents: dict[int, Value]) -> None:
        for place, value in contents.items():
            stored = self.as_type(value, array.type)
            self.block.append(Store(array, constant(U32, place), stored))

    def store_anyway(self, array: Array) -> None:
        """Store the known contents of an array, even where arrays may not exist."""
        for place, value in self.contents[array].items():
            self.block.append(Store(array, constant(U32, place), value))

    def snapshot(self):
        return {array: dict(values) for array, values in self.contents.items()}

    def state(self):
        kinds = [(array, array.is_stored, array.type) for array in self.arrays]
        return self.snapshot(), kinds, set(self.settled)

    def restore(self, state):
        contents, kinds, settled = state
        self.settled = set(settled)
        self.contents = {array: dict(values) for array, values in contents.items()}
        self.arrays = [array for array, *_ in kinds]
        for array, is_stored, type in kinds:
            array.is_stored, array.type = is_stored, type

    def merged(self, found: list[tuple[list, Any]]) -> Any:
        """Merge the values that several paths through the program leave; assigned at their ends."""
        defined = [(block, value) for block, value in found if value is not UNDEFINED]
        if not defined:
            return UNDEFINED
        values = [value for _, value in defined]
        first, is_partial = values[0], len(defined) < len(found)
        if not is_partial and all(value is first for value in values):
            return first
        if len({type(value) for value in values}) != 1:
            raise Untranslatable("values of different kinds that depend on a condition")
        if isinstance(first, tuple) and not isinstance(first, View):
            nothing = (UNDEFINED,) * len(first)
            rows = [nothing if value is UNDEFINED else value for _, value in found]
            columns, blocks = zip(*rows, strict=True), [block for block, _ in found]
            members = [self.merged(list(zip(blocks, each, strict=True))) for each in columns]
            return type(first)(*members) if hasattr(first, "_fields") else tuple(members)
        if not isinstance(first, Value):
            if all(value == first for value in values):
                return first
            raise Untranslatable("arrays or functions that depend on a condition")
        if all(v.is_constant and v.args == first.args and v.type == first.type for v in values):
            return first
        variable = self.variable(first.type, *found_bounds(values))
        for block, value in defined:
            block.append(Assign(variable, value))
        start = constant(first.type, 0) if is_partial else None  # any number will do
        self.declared.append(Declare(variable, start))
        return variable

    def join_arrays(self, before, states) -> None:
        """Merge the contents of arrays after both paths."""
        (then, one), (otherwise, other) = states
        self.contents = {}
        for array in before:
            a, b = one[array], other[array]
            if array.is_stored:  # on one path or both: the other one stores its contents
                for body, known in ((then, a), (otherwise, b)):
                    self.within(body, lambda known=known, array=array: self._write(array, known))
                self.contents[array] = {}
                continue
            merged = {}
            for place in sorted(a.keys() | b.keys()):
                x, y = a.get(place), b.get(place)
                missing = constant((x or y).type, 0)  # never written: any number will do
                merged[place] = self.merged([(then, x or missing), (otherwise, y or missing)])
            self.contents[array] = merged


def found_bounds(values) -> tuple:
    """Bounds of all values, if they are integers."""
    if values[0].low is None:
        return None, None
    return min(value.low for value in values), max(value.high for value in values)


def identity(operand):
    """Key of an operand: equal for the same operands."""
    is_constant = isinstance(operand, Value) and operand.is_constant
    return (operand.type, *operand.args) if is_constant else id(operand)
