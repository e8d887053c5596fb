"""Intermediate form of a model: scalars, arrays of known length, branches and loops; no calls.

Tracing translates a model's device functions to it, and back ends print it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

F32, I32, U32, I64, U64, BOOL, F64 = "f32", "i32", "u32", "i64", "u64", "bool", "f64"
RANGES = {
    BOOL: (0, 1),
    I32: (-(2**31), 2**31 - 1),
    U32: (0, 2**32 - 1),
    I64: (-(2**63), 2**63 - 1),
    U64: (0, 2**64 - 1),
}
INTEGERS = (I32, U32, I64, U64)
NARROW, LONG = (I32, U32), (I64, U64)


class Value:
    """Scalar: a constant, a variable that is assigned once, or one that is assigned again.

    `low` and `high` bound an integer.
    """

    __slots__ = ("args", "high", "low", "name", "op", "type")

    def __init__(self, op: str, type: str, args: tuple = (), low=None, high=None):
        self.op, self.type, self.args, self.name = op, type, args, None
        least, most = RANGES.get(type, (None, None))
        self.low = least if low is None else max(low, least)
        self.high = most if high is None else min(high, most)

    @property
    def is_constant(self) -> bool:
        return self.op == "const"

    @property
    def value(self) -> Any:
        """Number of a constant."""
        return self.args[0]

    def __repr__(self):
        return f"{self.op}:{self.type}{list(self.args)}"


@dataclass(eq=False)
class Array:
    """Array of known length and one type; "x" is the input and "y" the output."""

    name: str
    length: int
    type: str = F32
    is_stored: bool = False  # whether it has to exist, because an index is known only at run time


@dataclass(eq=False)
class Let:
    """Computes a value at this point."""

    value: Value


@dataclass(eq=False)
class Declare:
    """Variable that is assigned later, more than once."""

    variable: Value
    start: Value | None = None


@dataclass(eq=False)
class Assign:
    variable: Value
    value: Value


@dataclass(eq=False)
class Store:
    array: Array
    index: Value
    value: Value


@dataclass(eq=False)
class If:
    condition: Value
    then: list = field(default_factory=list)
    otherwise: list = field(default_factory=list)


@dataclass(eq=False)
class For:
    """Loop of a variable from start to below stop."""

    variable: Value
    start: Value
    stop: Value
    step: int
    body: list = field(default_factory=list)


@dataclass(eq=False)
class Forever:
    """Loop that repeats until a Break in it."""

    body: list = field(default_factory=list)


@dataclass(eq=False)
class Break:
    pass


@dataclass
class Program:
    """Statements that compute y [n_outputs] from x [n_inputs] and numbers of the parameters."""

    n_inputs: int
    n_outputs: int
    arrays: list[Array]
    body: list


def blocks_of(statement) -> tuple[list, ...]:
    """Lists of statements within a statement."""
    if isinstance(statement, If):
        return statement.then, statement.otherwise
    if isinstance(statement, (For, Forever)):
        return (statement.body,)
    return ()


def values_of(statement) -> tuple[Value, ...]:
    """Values that a statement itself reads."""
    if isinstance(statement, Let):
        return tuple(arg for arg in statement.value.args if isinstance(arg, Value))
    if isinstance(statement, Declare):
        return (statement.start,) if statement.start is not None else ()
    if isinstance(statement, Assign):
        return (statement.value,)
    if isinstance(statement, Store):
        return statement.index, statement.value
    if isinstance(statement, If):
        return (statement.condition,)
    if isinstance(statement, For):
        return statement.start, statement.stop
    return ()


def n_statements(body: list) -> int:
    return sum(1 + sum(map(n_statements, blocks_of(each))) for each in body)


def without_unused(body: list) -> list:
    """Equal program without values and variables that nothing reads."""
    used, size = set(), -1
    while len(used) != size:  # a loop's variables may be read above their assignment
        size = len(used)
        _mark(body, used)
    return _kept(body, used)


def _mark(body, used):
    for statement in reversed(body):
        for block in blocks_of(statement):
            _mark(block, used)
        if _is_needed(statement, used):
            used.update(map(id, values_of(statement)))


def _is_needed(statement, used) -> bool:
    if isinstance(statement, Let):
        return id(statement.value) in used
    if isinstance(statement, (Declare, Assign)):
        return id(statement.variable) in used
    if isinstance(statement, If):
        return any(_is_needed(each, used) for block in blocks_of(statement) for each in block)
    return True


def _kept(body, used):
    kept = []
    for statement in body:
        if not _is_needed(statement, used):
            continue
        if isinstance(statement, If):
            statement.then = _kept(statement.then, used)
            statement.otherwise = _kept(statement.otherwise, used)
        elif isinstance(statement, (For, Forever)):
            statement.body = _kept(statement.body, used)
        kept.append(statement)
    return kept
