"""Paths through a function: blocks one after the other, and branches up to where they meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from numba.core import ir

from numbanet.exports.front_end import TypedFunction
from numbanet.exports.memory import UNDEFINED, Memory
from numbanet.exports.program import If
from numbanet.exports.views import Untranslatable


class Until(NamedTuple):
    """End of a path: at a block, or with the function.

    Args:
        stop: the block, None for none.
        arrive: is told (frame, block before) there.
        returned: is told the value that a function returns.
        begins_loop: whether the first block is the loop's that is being written, even if it is
            `stop` too.
    """

    stop: int | None
    arrive: Callable | None
    returned: Callable
    begins_loop: bool = False


class Frame:
    """Call: its function's typed form, and its variables."""

    def __init__(self, code: TypedFunction, variables: dict, caller=None):
        self.code, self.variables, self.caller = code, variables, caller
        self.line = None
        self.leaves = None  # function that writes the exit of a kept loop, within one

    def branch(self) -> Frame:
        copy = Frame(self.code, dict(self.variables), self.caller)
        copy.line, copy.leaves = self.line, self.leaves
        return copy


class Branches(Memory):
    """Traversal of a function's blocks; subclasses translate the statements."""

    def run(self, frame, label, before, until: Until) -> None:
        """Follow blocks, the first one coming from `before`."""
        code, begins_loop = frame.code, until.begins_loop
        while True:
            if label == until.stop and not begins_loop:
                until.arrive(frame, before)
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
                until.returned(frame.variables[end.value.name])
                return
            elif isinstance(end, ir.Branch):
                condition = self.truth(frame.variables[end.cond.name])
                if condition.is_constant:
                    before, label = label, end.truebr if condition.value else end.falsebr
                    continue
                inside = frame.leaves and frame.leaves(frame, label, condition)
                if inside is not None:
                    before, label = label, inside
                    continue
                join = code.join_of[label]
                self.fork(frame, label, condition, until)
                if join is None or join == until.stop:
                    return
                before, label = None, join
            else:
                self.frame.line = end.loc.line
                raise Untranslatable(f"`{type(end).__name__.lower()}`, such as an exception")

    def enter(self, frame, block, before) -> None:
        """Set the phi nodes of a block; None: they are set already."""
        if before is None:
            return
        found = [(phi.target.name, incoming(phi, before, frame)) for phi in phis(block)]
        frame.variables.update(found)

    def fork(self, frame, label, condition, until: Until) -> None:
        """Follow both ways from a branch, up to where they meet."""
        statement, join = If(condition), frame.code.join_of[label]
        end = frame.code.blocks[label].body[-1]
        arrivals: list[tuple[list, dict]] = []
        before, states = self.snapshot(), []
        unstored = [array for array in before if not array.is_stored]
        stored: set = set()  # in one way or both

        def meet(at, came_from):
            chosen = phis(frame.code.blocks[join])
            found = {phi.target.name: incoming(phi, came_from, at) for phi in chosen}
            arrivals.append((self.block, at.variables | found))

        arrive = until.arrive if join is not None and join == until.stop else meet
        ends = Until(join, arrive, until.returned)
        for target, body in ((end.truebr, statement.then), (end.falsebr, statement.otherwise)):
            self.contents = {array: dict(values) for array, values in before.items()}
            way = frame.branch()
            outer, self.frame = self.frame, way
            self.within(body, lambda t=target, w=way: self.run(w, t, label, ends))
            self.frame = outer
            states.append((body, self.contents))
            stored |= {array for array in unstored if array.is_stored}
            for array in unstored:
                array.is_stored = False
        for array in stored:
            array.is_stored = True
        self.join_arrays(before, states)
        self.block.append(statement)
        if arrive is meet and arrivals:
            self.meet(frame, arrivals)

    def meet(self, frame, arrivals) -> None:
        """Merge the values of variables where paths meet; a loop that is unrolled changes many."""
        names = set.intersection(*(set(variables) for _, variables in arrivals))
        for name in sorted(names):
            ways = [(block, variables[name]) for block, variables in arrivals]
            try:
                frame.variables[name] = self.merged(ways)
            except Untranslatable:
                frame.variables[name] = UNDEFINED  # an error only if it is read


def phis(block):
    return [each for each in block.body if operation(each) == "phi"]


def operation(statement) -> str | None:
    """Kind of the expression that a statement assigns; None for other statements."""
    is_expression = isinstance(statement, ir.Assign) and isinstance(statement.value, ir.Expr)
    return statement.value.op if is_expression else None


def incoming(phi, before, frame):
    """Value of a phi node on the path from the block `before`; None: its present value."""
    if before is None:
        return frame.variables.get(phi.target.name, UNDEFINED)
    places = phi.value.incoming_blocks
    if before not in places:
        raise Untranslatable("a variable that is assigned on some ways only")
    variable = phi.value.incoming_values[places.index(before)]
    if variable is ir.UNDEFINED:
        return UNDEFINED
    return frame.variables.get(variable.name, UNDEFINED)
