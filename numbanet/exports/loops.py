"""Translation of loops: unrolled where that is short or necessary, else written as loops."""

from __future__ import annotations

from numba.core import ir

from numbanet.exports.arithmetic import constant
from numbanet.exports.branches import Branches, Until, incoming, operation, phis
from numbanet.exports.memory import UNDEFINED, found_bounds
from numbanet.exports.program import (
    BOOL,
    I32,
    RANGES,
    U32,
    Assign,
    Break,
    Declare,
    For,
    Forever,
    If,
    Let,
    Value,
    n_statements,
)  # fmt: skip
from numbanet.exports.views import NeedsConstant, Range, Untranslatable

MOST_UNROLLED = 256  # statements that a loop may become
FEW_ROUNDS = 4  # of a loop that is always unrolled
MOST_LOOKS = 8  # at a loop, until all arrays that it writes to are known


class Loops(Branches):
    """Translation of loops."""

    def kept_loop(self, frame, header, before, loop) -> tuple[int | None, int] | None:
        """Write a loop as one; returns (block, next block) after it, None to unroll it."""
        block = frame.code.blocks[header]
        over = self.range_of(frame, block, before)
        if (over is None or not self.keeps_loops) and has_iterator(block):
            return None  # over a tuple, or to be unrolled
        rounds = rounds_of(over)
        if rounds is not None and rounds <= FEW_ROUNDS:
            return None
        original, start, touched = self.state(), len(self.block), self.touched
        variables, frame_now = dict(frame.variables), self.frame
        written: list = []
        try:
            result = self.seen_loop(frame, (header, before, loop, over), written)
        except (NeedsConstant, Untranslatable):
            if rounds is None:
                raise
            result = None
        if result is None or (
            rounds is not None and rounds * n_statements(written) <= MOST_UNROLLED
        ):
            self.restore(original)
            frame.variables, self.frame, self.touched = variables, frame_now, touched
            del self.block[start:]
            return None
        self.touched |= touched
        self.block.extend(written)
        return result

    def seen_loop(self, frame, place, written) -> tuple[int | None, int]:
        """Translate the loop repeatedly, until the arrays that it writes to exist before it."""
        header, before, loop, over = place
        state, start, variables = self.state(), len(self.block), dict(frame.variables)
        for _ in range(MOST_LOOKS):
            self.touched = set()
            written.clear()
            result = KeptLoop(self, frame, header, loop, over).write(before, written)
            was_stored = {array: stored for array, stored, _ in state[1]}
            needed = [array for array in self.touched if was_stored.get(array) is False]
            if not needed:
                return result
            self.restore(state)
            frame.variables = dict(variables)
            del self.block[start:]
            for array in needed:
                self.store_contents(array)
            state, start = self.state(), len(self.block)
        raise NeedsConstant("arrays")

    def range_of(self, frame, block, before) -> Range | None:
        """Range of a `for`; None for other loops."""
        for statement in block.body:
            if operation(statement) == "iternext":
                self.enter(frame, block, before)
                over = frame.variables[statement.value.value.name].over
                return over if isinstance(over, Range) else None
        return None


class KeptLoop:
    """Loop that is written as one: For over a range, else Forever with breaks."""

    def __init__(self, tracer: Loops, frame, header: int, loop, over: Range | None):
        self.tracer, self.frame, self.header = tracer, frame, header
        self.loop, self.over = loop, over
        self.block = frame.code.blocks[header]
        self.carried: list = []  # (name, value before, variable)
        self.departures: list = []  # (block that ends with a break, frame, label, where it leads)

    def write(self, before, written) -> tuple[int | None, int]:
        """Write declarations and the loop; returns (block, next block) after it."""
        tracer = self.tracer
        self.carry(before, written)
        statement = self.head()
        snapshot = tracer.snapshot()
        tracer.within(statement.body, lambda: self.inside(statement))
        for array, values in tracer.snapshot().items():
            if array in snapshot and values != snapshot[array]:
                tracer.touched.add(array)
        written.append(statement)
        for name, start, variable in self.carried:
            self.frame.variables[name] = start if variable is None else variable
        return self.departed() if self.over is None else (self.header, self.block.body[-1].falsebr)

    def carry(self, before, written) -> None:
        """Declare the variables that an iteration passes to the next one."""
        for phi in phis(self.block):
            start, name = incoming(phi, before, self.frame), phi.target.name
            variable = None
            if isinstance(start, Value):
                variable = self.tracer.variable(start.type)
                written.append(Declare(variable, start))
            self.frame.variables[name] = start if variable is None else variable
            if start is not UNDEFINED:
                self.carried.append((name, start, variable))

    def head(self) -> For | Forever:
        if self.over is None:
            return Forever()
        start, stop, step = self.over
        if not step.is_constant or step.value <= 0:
            raise Untranslatable("a step that is not a positive constant")
        low, high = start.low, max(stop.high - 1, start.low)
        kinds = (U32, I32, start.type)
        kind = next(each for each in kinds if in_range(low, high + int(step.value), each))
        counter, cast = self.tracer.variable(kind, low, high), self.tracer.cast
        return For(counter, cast(start, kind), cast(stop, kind), int(step.value))

    def inside(self, statement) -> None:
        """Translate the body, from its first block or, without a range, from the header."""
        tracer, header = self.tracer, self.header
        begins = self.over is None
        label = header
        if not begins:
            if header in self.frame.code.left_early:
                raise NeedsConstant("break")
            self.number(tracer.cast(statement.variable, self.over.start.type))
            label = self.block.body[-1].truebr
        inner = self.frame.branch()
        inner.leaves = self.leaves
        before, tracer.frame = tracer.frame, inner
        tracer.loops_open += not begins
        try:
            until = Until(header, self.back, no_return, begins)
            tracer.run(inner, label, None if begins else header, until)
        finally:
            tracer.loops_open -= not begins
        tracer.frame = before

    def number(self, number: Value) -> None:
        """Translate the header of a `for` over a range, with the number of this iteration."""
        for statement in self.block.body[:-1]:
            kind = operation(statement)
            if kind == "iternext":
                self.frame.variables[statement.target.name] = (number, constant(BOOL, True))
            elif kind != "phi" and isinstance(statement, ir.Assign):
                self.tracer.execute(self.frame, statement)

    def back(self, at, came_from) -> None:
        """End an iteration: all values are read before any variable is assigned."""
        tracer, assignments = self.tracer, []
        ends = {phi.target.name: incoming(phi, came_from, at) for phi in phis(self.block)}
        for name, start, variable in self.carried:
            value = ends[name]
            if variable is None:
                if value is not start and value != start:
                    raise NeedsConstant("arrays or functions that a round changes")
            elif value is not variable:
                copy = Value("copy", variable.type, (tracer.cast(value, variable.type),))
                tracer.block.append(Let(copy))
                assignments.append(Assign(variable, copy))
        tracer.block.extend(assignments)

    def leaves(self, at, label, condition) -> int | None:
        """Write a break at a branch that exits the loop; returns the block where it continues."""
        end = at.code.blocks[label].body[-1]
        outside = [each for each in (end.truebr, end.falsebr) if each not in self.loop.body]
        if at.code is not self.frame.code or len(outside) != 1:
            return None
        if self.over is not None:
            raise NeedsConstant("break")
        if end.falsebr in outside:
            condition = self.tracer.unary("lnot", condition)
        statement = If(condition)
        self.tracer.block.append(statement)
        self.departures.append((statement.then, at.branch(), label, outside[0]))
        return end.falsebr if end.truebr in outside else end.truebr

    def departed(self) -> tuple[None, int]:
        """Block after a loop without a range, with the variables that are known there."""
        outsides = {outside for *_, outside in self.departures}
        if len(outsides) != 1:
            raise Untranslatable("a loop that ends in several ways, or never")
        (outside,) = outsides
        joined = phis(self.frame.code.blocks[outside])
        known = [
            at.variables | {phi.target.name: incoming(phi, label, at) for phi in joined}
            for _, at, label, _ in self.departures
        ]
        for name in sorted(set.intersection(*map(set, known))):
            found = [variables[name] for variables in known]
            if any(value is not self.frame.variables.get(name) for value in found):
                self.frame.variables[name] = self.after(found)
        for block, *_ in self.departures:
            block.append(Break())
        return None, outside

    def after(self, found: list):
        """Value of a variable of the loop after it."""
        tracer = self.tracer
        if not all(isinstance(value, Value) for value in found):
            return found[0] if all(value is found[0] for value in found) else UNDEFINED
        variable = tracer.variable(found[0].type, *found_bounds(found))
        tracer.declared.append(Declare(variable))
        for (block, *_), value in zip(self.departures, found, strict=True):
            block.append(Assign(variable, value))
        return variable


def no_return(value) -> None:
    raise NeedsConstant("return")


def rounds_of(over: Range | None) -> int | None:
    """Number of iterations of a loop, if it is known."""
    if over is None or not all(each.is_constant for each in over):
        return None
    return len(range(*(int(each.value) for each in over)))


def in_range(low: int, high: int, kind: str) -> bool:
    return RANGES[kind][0] <= low and high <= RANGES[kind][1]


def has_iterator(block) -> bool:
    return any(operation(each) == "iternext" for each in block.body)
