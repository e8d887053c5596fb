"""Running device functions on values that are known only later, which leaves a program without calls.

The typed form of each function is followed statement by statement. What is constant is computed,
calls are followed, loops over few constants are unrolled; the rest becomes a statement of the
program. Numba's types decide how every operation rounds and wraps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import typeof
from numba.core import ir, types

from numbanet.exports.arithmetic import Arithmetic, constant
from numbanet.exports.errors import ExportError
from numbanet.exports.expressions import argument_types, bound_values, evaluate
from numbanet.exports.front_end import TypedFunction, typed
from numbanet.exports.program import (
    BOOL, F32, F64, I32, I64, RANGES, U32, Array, Assign, Break, Declare, For, Forever, If, Let,
    Store, Value, n_statements,
)  # fmt: skip
from numbanet.exports.views import TYPES, NeedsConstant, Range, Untranslatable, View, scalar_type

MOST_UNROLLED = 256  # statements that a loop may become


class Frame:
    """A call: its function's typed form and variables."""

    def __init__(self, code: TypedFunction, variables: dict, caller=None):
        self.code, self.variables, self.caller = code, variables, caller
        self.line = None
        self.leaves = None  # what writes that a loop ends, within one that is kept

    def branch(self) -> Frame:
        copy = Frame(self.code, dict(self.variables), self.caller)
        copy.line, copy.leaves = self.line, self.leaves
        return copy


class Tracer(Arithmetic):
    """Builds the program of one function; `translations` are what stands for other functions."""

    def __init__(self, translations: dict, keep_loops: bool = True, rounds: bool = False):
        self.translations, self.keep_loops = translations, keep_loops
        self.rounds, self.rounded = rounds, {}
        self.block: list = []
        self.declared: list[Declare] = []  # variables that branches assign
        self.arrays: list[Array] = []
        self.contents: dict[Array, dict[int, Value]] = {}  # what is known of arrays
        self.touched: set[Array] = set()
        self.known: list[dict] = [{}]  # values by operation, of this block and those around it
        self.loops_open = 0  # kept loops around the current statement
        self.frame = None

    # Statements

    def emit(self, op, type, args, low=None, high=None) -> Value:
        if type == F64:
            raise Untranslatable("float64; write np.float32(...) around each Python float")
        key = (op, type, *(a.args if isinstance(a, Value) and a.is_constant else id(a) for a in args))
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
        """Let the action write to another block."""
        before, self.block = self.block, block
        self.known.append({})
        try:
            action()
        finally:
            self.block = before
            self.known.pop()
        return block

    # Arrays

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
        """Make an array one that exists."""
        if array.is_stored or array.name == "x":
            return
        if not self.keep_loops:
            raise Untranslatable("an index that is known only at run time")
        array.is_stored = True
        contents, self.contents[array] = self.contents[array], {}
        if contents and all(value.type == U32 for value in contents.values()):
            array.type = U32
        for place, value in contents.items():
            stored = self.as_type(value, array.type)
            self.block.append(Store(array, constant(U32, place), stored))

    def store_anyway(self, array: Array) -> None:
        """Write what is known of an array, also where arrays do not exist."""
        for place, value in self.contents[array].items():
            self.block.append(Store(array, constant(U32, place), value))

    def snapshot(self):
        return {array: dict(values) for array, values in self.contents.items()}

    def state(self):
        return self.snapshot(), [(array, array.is_stored, array.type) for array in self.arrays]

    def restore(self, state):
        contents, kinds = state
        self.contents = {array: dict(values) for array, values in contents.items()}
        self.arrays = [array for array, *_ in kinds]
        for array, is_stored, type in kinds:
            array.is_stored, array.type = is_stored, type

    # Calls

    def call(self, function, arg_types: tuple, args: tuple) -> Any:
        """Follow a Python function."""
        code = typed(function, argument_types(function, arg_types))
        args = bound_values(function, args)
        frame = Frame(code, {}, self.frame)
        if depth(frame) > 200:
            raise Untranslatable("a function that calls itself")
        frame.variables.update({f"arg.{k}": value for k, value in enumerate(args)})
        before, self.frame = self.frame, frame
        returned = []
        first = min(code.blocks)
        try:
            self.run(frame, first, None, None, None, lambda v: returned.append((self.block, v)))
        except Untranslatable as error:
            line = self.frame.line
            raise ExportError(self.frame.code.function, str(error), line) from error
        self.frame = before
        return self.merged(returned)

    def merged(self, found: list[tuple[list, Any]]) -> Any:
        """One value for what several ways through the program have left; assigned at their ends."""
        values = [value for _, value in found]
        first = values[0]
        if all(value is first for value in values):
            return first
        if len({type(value) for value in values}) != 1:
            raise Untranslatable("values of different kinds that depend on a condition")
        if any(value is UNDEFINED for value in values):
            return UNDEFINED
        if isinstance(first, tuple) and not isinstance(first, View):
            columns = zip(*values, strict=True)
            blocks = [block for block, _ in found]
            members = [self.merged(list(zip(blocks, each, strict=True))) for each in columns]
            return type(first)(*members) if hasattr(first, "_fields") else tuple(members)
        if not isinstance(first, Value):
            if all(value == first for value in values):
                return first
            raise Untranslatable("arrays or functions that depend on a condition")
        if all(v.is_constant and v.args == first.args and v.type == first.type for v in values):
            return first
        variable = self.variable(first.type, *found_bounds(values))
        for block, value in found:
            block.append(Assign(variable, value))
        self.declared.append(Declare(variable))
        return variable

    # Control flow

    def run(self, frame, label, before, stop, arrive, returned, begins_loop=False) -> None:
        """Follow blocks from `label` to `stop` or to the end of the function."""
        code = frame.code
        while True:
            if label == stop and not begins_loop:
                arrive(frame, before)
                return
            loop = code.loops.get(label)
            if loop is not None and before not in loop.body and not begins_loop:
                after = self.kept_loop(frame, label, before, loop)
                if after is not None:
                    before, label = after
                    continue
            begins_loop = False
            block = code.blocks[label]
            self.enter(frame, block, before)
            for statement in block.body[:-1]:
                self.execute(frame, statement)
            end = block.body[-1]
            if isinstance(end, ir.Jump):
                before, label = label, end.target
            elif isinstance(end, ir.Return):
                returned(frame.variables[end.value.name])
                return
            elif isinstance(end, ir.Branch):
                condition = self.truth(frame.variables[end.cond.name])
                if condition.is_constant:
                    before, label = label, end.truebr if condition.value else end.falsebr
                    continue
                if frame.leaves is not None and (inside := frame.leaves(frame, label, condition, end)):
                    before, label = label, inside
                    continue
                join = code.join_of[label]
                self.fork(frame, label, condition, end, join, stop, arrive, returned)
                if join is None or join == stop:
                    return
                before, label = None, join
            else:
                self.frame.line = end.loc.line
                raise Untranslatable(f"`{type(end).__name__.lower()}`, such as an exception")

    def enter(self, frame, block, before) -> None:
        """Choose the values of a block's phi nodes; None: they are chosen already."""
        if before is None:
            return
        found = [(phi.target.name, incoming(phi, before, frame)) for phi in phis(block)]
        frame.variables.update(found)

    def fork(self, frame, label, condition, end, join, stop, arrive, returned) -> None:
        """Both ways from a branch, up to where they meet."""
        statement = If(condition)
        arrivals: list[tuple[list, dict]] = []
        before, states = self.snapshot(), []

        def meet(at, came_from):
            block = frame.code.blocks[join]
            chosen = {phi.target.name: incoming(phi, came_from, at) for phi in phis(block)}
            arrivals.append((self.block, at.variables | chosen))

        inner = arrive if join == stop and join is not None else meet
        for target, body in ((end.truebr, statement.then), (end.falsebr, statement.otherwise)):
            self.contents = {array: dict(values) for array, values in before.items()}
            way = frame.branch()
            outer, self.frame = self.frame, way
            self.within(
                body, lambda t=target, w=way: self.run(w, t, label, join, inner, returned)
            )
            self.frame = outer
            states.append((body, self.contents))
        self.join_arrays(before, states)
        self.block.append(statement)
        if inner is meet and arrivals:
            self.meet(frame, arrivals)

    def meet(self, frame, arrivals) -> None:
        """What variables hold where several ways meet; a loop that is unrolled changes many."""
        names = set.intersection(*(set(variables) for _, variables in arrivals))
        for name in sorted(names):
            ways = [(block, variables[name]) for block, variables in arrivals]
            try:
                frame.variables[name] = self.merged(ways)
            except Untranslatable:
                frame.variables[name] = UNDEFINED  # an error only if it is read

    def join_arrays(self, before, states) -> None:
        """What arrays hold after both ways."""
        (then, one), (otherwise, other) = states
        self.contents = {}
        for array in before:
            a, b = one[array], other[array]
            if array.is_stored:  # in one way or both: the other one stores what it knows
                for body, known in ((then, a), (otherwise, b)):
                    for place, value in known.items():
                        body.append(Store(array, constant(U32, place), value))
                self.contents[array] = {}
                continue
            merged = {}
            for place in sorted(a.keys() | b.keys()):
                x, y = a.get(place), b.get(place)
                missing = constant((x or y).type, 0)  # never written: any number will do
                merged[place] = self.merged([(then, x or missing), (otherwise, y or missing)])
            self.contents[array] = merged

    def truth(self, value) -> Value:
        if not isinstance(value, Value):
            return constant(BOOL, bool(value))
        return self.cast(value, BOOL)

    # Loops

    def kept_loop(self, frame, header, before, loop):
        """Write a loop as one; returns (block, next block) after it, None if it is to be unrolled."""
        block = frame.code.blocks[header]
        over = self.range_of(frame, block, before)
        if (over is None or not self.keep_loops) and has_iterator(block):
            return None  # over a tuple, or to be unrolled
        if over is not None and all(each.is_constant for each in over):
            trips = len(range(*(int(each.value) for each in over)))
            if trips <= 4:
                return None
        else:
            trips = None
        original = state = self.state()
        start = place = len(self.block)
        touched, self.touched = self.touched, set()
        variables = dict(frame.variables)
        frame_now = self.frame
        try:
            written: list = []
            # Which arrays it writes to is known only after a first look.
            for _ in range(8):
                self.touched = set()
                written.clear()
                result = self.loop(frame, header, before, loop, over, written)
                was_stored = {array: stored for array, stored, _ in state[1]}
                needed = [a for a in self.touched if was_stored.get(a) is False]
                if not needed:
                    break
                self.restore(state)
                frame.variables = dict(variables)
                del self.block[place:]
                for array in needed:
                    self.store_contents(array)
                state, place = self.state(), len(self.block)
        except (NeedsConstant, Untranslatable):
            if trips is None:
                raise
            self.restore(original)
            frame.variables = variables
            self.frame = frame_now
            del self.block[start:]
            self.touched = touched
            return None
        size = n_statements(written)
        if trips is not None and trips * size <= MOST_UNROLLED:
            self.restore(original)
            frame.variables = variables
            del self.block[start:]
            self.touched = touched
            return None
        self.touched |= touched
        self.block.extend(written)
        return result

    def range_of(self, frame, block, before) -> Range | None:
        for statement in block.body:
            if isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Expr):
                if statement.value.op == "iternext":
                    self.enter(frame, block, before)
                    over = frame.variables[statement.value.value.name].over
                    return over if isinstance(over, Range) else None
        return None

    def loop(self, frame, header, before, loop, over, written) -> tuple[int, int]:
        """Write declarations and one For or Forever to `written`."""
        block = frame.code.blocks[header]
        carried = []
        for phi in phis(block):
            start = incoming(phi, before, frame)
            name = phi.target.name
            if start is UNDEFINED:
                frame.variables[name] = UNDEFINED
                continue
            if not isinstance(start, Value):
                frame.variables[name] = start
                carried.append((name, start, None))
                continue
            variable = self.variable(start.type)
            written.append(Declare(variable, start))
            frame.variables[name] = variable
            carried.append((name, start, variable))
        body: list = []
        statement = For(None, None, None, 1, body) if over is not None else Forever(body)
        if over is not None:
            if not over.step.is_constant or over.step.value <= 0:
                raise Untranslatable("a step that is not a positive constant")
            type = over.start.type
            low, high = over.start.low, max(over.stop.high - 1, over.start.low)
            narrow = next(t for t in (U32, I32, type) if bounds_fit(low, high + int(over.step.value), t))
            counter = self.variable(narrow, low, high)
            statement.variable = counter
            statement.start, statement.stop = self.cast(over.start, narrow), self.cast(over.stop, narrow)
            statement.step = int(over.step.value)
        exits, departures = [], []

        def back(at, came_from):
            ends = [(incoming(phi, came_from, at), phi.target.name) for phi in phis(block)]
            ends = {name: value for value, name in ends}
            copies = []
            for name, start, variable in carried:
                value = ends[name]
                if variable is None:
                    if value is not start and value != start:
                        raise NeedsConstant
                elif value is not variable:
                    # All are read before any is assigned.
                    copy = Value("copy", variable.type, (self.cast(value, variable.type),))
                    self.block.append(Let(copy))
                    copies.append(Assign(variable, copy))
            self.block.extend(copies)

        def leave(value):
            raise NeedsConstant("return")

        def inside():
            if over is not None:
                self.numbered_header(frame, block, self.cast(counter, type))
                branch = block.body[-1]
                exits.append(branch.falsebr)
                target = branch.truebr
            else:
                target = None
            self.run_inside(frame, target, header, loop, back, leave, departures)

        snapshot = self.snapshot()
        self.within(body, inside)
        for array, values in self.snapshot().items():
            if array in snapshot and values != snapshot[array]:
                self.touched.add(array)
        written.append(statement)
        for name, start, variable in carried:
            frame.variables[name] = start if variable is None else variable
        if over is not None:
            return header, exits[0]
        return self.departed(frame, departures)

    def run_inside(self, frame, target, header, loop, back, leave, departures):
        """The body of a loop, from `target` or, for one without a range, from its header."""
        inner = frame.branch()
        before, self.frame = self.frame, inner
        if target is not None and header in frame.code.left_early:
            raise NeedsConstant("break")

        def leaves(at, label, condition, end):
            outside = [each for each in (end.truebr, end.falsebr) if each not in loop.body]
            if len(outside) != 1:
                return None
            if target is not None:
                raise NeedsConstant("break")
            stays = end.falsebr if end.truebr in outside else end.truebr
            if end.falsebr in outside:
                condition = self.unary("lnot", condition)
            ends: list = []
            self.block.append(If(condition, ends))
            departures.append((ends, at.branch(), label, outside[0]))
            return stays

        inner.leaves = leaves
        self.loops_open += target is not None
        try:
            if target is None:
                self.run(inner, header, None, header, back, leave, begins_loop=True)
            else:
                self.run(inner, target, header, header, back, leave)
        finally:
            self.loops_open -= target is not None
        self.frame = before

    def departed(self, frame, departures) -> tuple[int | None, int]:
        """Where a loop without a range leads to, and what is known there."""
        outsides = {outside for *_, outside in departures}
        if len(outsides) != 1:
            raise Untranslatable("a loop that ends in several ways, or never")
        (outside,) = outsides
        known = []
        for _, at, label, _ in departures:
            chosen = {
                phi.target.name: incoming(phi, label, at)
                for phi in phis(frame.code.blocks[outside])
            }
            known.append(at.variables | chosen)
        for name in set.intersection(*(set(each) for each in known)):
            found = [each[name] for each in known]
            if all(value is frame.variables.get(name) for value in found):
                continue
            if all(isinstance(value, Value) and not value.is_constant for value in found):
                variable = self.variable(found[0].type, *found_bounds(found))
                self.declared.append(Declare(variable))
                for (block, *_), value in zip(departures, found, strict=True):
                    block.append(Assign(variable, value))
                frame.variables[name] = variable
            elif all(value is found[0] for value in found) or not isinstance(found[0], Value):
                frame.variables[name] = found[0]
            else:
                blocks = [block for block, *_ in departures]
                frame.variables[name] = self.merged(list(zip(blocks, found, strict=True)))
        for block, *_ in departures:
            block.append(Break())
        return None, outside

    def numbered_header(self, frame, block, number) -> None:
        """The header of a `for` over a range, with the number of this round."""
        for statement in block.body[:-1]:
            if not isinstance(statement, ir.Assign):
                continue
            value, name = statement.value, statement.target.name
            if isinstance(value, ir.Expr) and value.op == "iternext":
                frame.variables[name] = (number, constant(BOOL, True))
            elif isinstance(value, ir.Expr) and value.op == "phi":
                continue
            else:
                self.execute(frame, statement)

    # One statement

    def execute(self, frame, statement) -> None:
        frame.line = statement.loc.line
        self.frame = frame
        if isinstance(statement, ir.Assign):
            if isinstance(statement.value, ir.Expr) and statement.value.op == "phi":
                return
            frame.variables[statement.target.name] = self.evaluate(frame, statement)
        elif isinstance(statement, (ir.SetItem, ir.StaticSetItem)):
            self.set_item(frame, statement)
        elif not isinstance(statement, ir.Del):
            raise Untranslatable(f"a statement of the kind {type(statement).__name__}")

    def set_item(self, frame, statement) -> None:
        variables = frame.variables
        target, value = variables[statement.target.name], variables[statement.value.name]
        index = statement.index
        if isinstance(statement, ir.StaticSetItem):
            index = statement.index_var.name if statement.index_var is not None else index
            index = variables[index] if isinstance(index, str) else self.from_python(index)
        else:
            index = variables[index.name]
        if not isinstance(target, View) or not isinstance(index, Value):
            raise Untranslatable("an assignment to anything but one element of a 1-D array")
        self.store(target, index, self.cast(value, target.type))

    def evaluate(self, frame, statement):
        return evaluate(self, frame, statement)

    def from_python(self, value, numba_type=None):
        """A constant of the program, or the Python object itself."""
        if isinstance(value, Value):
            return value
        if isinstance(value, (bool, np.bool_)):
            return constant(BOOL, value)
        if isinstance(value, (int, np.integer)):
            if isinstance(value, np.integer):
                return constant(scalar_type(types.unliteral(typeof(value))), value)
            known = numba_type is not None and isinstance(numba_type, types.Type)
            kind = types.unliteral(numba_type) if known else types.int64
            return constant(TYPES.get(kind, I64), value)
        if isinstance(value, np.float32):
            return constant(F32, value)
        if isinstance(value, (float, np.float64)):
            return constant(F64, value)
        if isinstance(value, tuple):
            members = [self.from_python(each) for each in value]
            return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
        if isinstance(value, np.ndarray):
            return tuple(self.from_python(each) for each in value)
        return value


UNDEFINED = object()  # what a variable holds on ways on which it is not assigned


def found_bounds(values) -> tuple:
    """What bounds all of them, if they are integers."""
    if values[0].low is None:
        return None, None
    return min(value.low for value in values), max(value.high for value in values)


def depth(frame) -> int:
    n = 0
    while frame is not None:
        frame, n = frame.caller, n + 1
    return n


def bounds_fit(low, high, type) -> bool:
    return RANGES[type][0] <= low and high <= RANGES[type][1]


def phis(block):
    return [
        each for each in block.body
        if isinstance(each, ir.Assign) and isinstance(each.value, ir.Expr) and each.value.op == "phi"
    ]  # fmt: skip


def incoming(phi, before, frame):
    """The value that a phi node takes on the way from the block `before`; None: it has it already."""
    if before is None:
        return frame.variables.get(phi.target.name, UNDEFINED)
    places = phi.value.incoming_blocks
    if before not in places:
        raise Untranslatable("a variable that is assigned on some ways only")
    variable = phi.value.incoming_values[places.index(before)]
    if variable is ir.UNDEFINED:
        return UNDEFINED
    return frame.variables.get(variable.name, UNDEFINED)


def has_iterator(block) -> bool:
    return any(
        isinstance(each, ir.Assign)
        and isinstance(each.value, ir.Expr)
        and each.value.op == "iternext"
        for each in block.body
    )
