"""Programs as text: the common part of three languages, which differ in types and operations."""

import math
from collections.abc import Mapping

from numbanet.exports.program import (
    BOOL,
    F32,
    I64,
    U64,
    Assign,
    Break,
    Declare,
    For,
    Forever,
    If,
    Let,
    Program,
    Store,
    Value,
    blocks_of,
    values_of,
)  # fmt: skip

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "/", "mod": "%", "and": "&",
    "or": "|", "xor": "^", "shl": "<<", "shr": ">>", "eq": "==", "ne": "!=", "lt": "<", "le": "<=",
    "gt": ">", "ge": ">=",
}  # fmt: skip
MOST_NESTED = 6  # operations in one expression
UNSTABLE = ("load", "variable", "copy")  # whose value is another one later


class Printer:
    """Printer of a program's statements; `name` begins every global name."""

    types: Mapping[str, str]

    def __init__(self, name: str):
        self.name = name
        self.texts: dict[int, str] = {}  # of values that have a name or are written where used
        self.n_names = 0

    def statements(self, program: Program) -> str:
        """Body of the function, indented by one level."""
        uses: dict[int, int] = {}
        _count(program.body, uses)
        arrays = [each for each in program.arrays if each.name != "y"]
        lines = [f"    {self.declare_array(array)}" for array in arrays]
        self._block(program.body, uses, 1, lines)
        return "\n".join(lines) + "\n"

    def _block(self, body, uses, level, lines):
        indent, inlined = "    " * level, _inlined(body, uses)
        for statement in body:
            if isinstance(statement, Let):
                value = statement.value
                text = self.operation(value)
                if id(value) in inlined:
                    self.texts[id(value)] = f"({text})" if not is_atom(text) else text
                else:
                    self.texts[id(value)] = name = self.new_name()
                    lines.append(indent + self.define(value.type, name, text))
            else:
                self._statement(statement, uses, level, lines)

    def _statement(self, statement, uses, level, lines):
        indent = "    " * level
        if isinstance(statement, Declare):
            variable = statement.variable
            name = self.texts[id(variable)] = self.new_name("v")
            start = "" if statement.start is None else self.text(statement.start)
            lines.append(indent + self.declare(variable.type, name, start))
        elif isinstance(statement, Assign):
            lines.append(f"{indent}{self.text(statement.variable)} = {self.text(statement.value)};")
        elif isinstance(statement, Store):
            place = f"{statement.array.name}[{self.text(statement.index)}]"
            lines.append(f"{indent}{place} = {self.text(statement.value)};")
        elif isinstance(statement, Break):
            lines.append(f"{indent}break;")
        elif isinstance(statement, If):
            lines.append(f"{indent}if ({self.text(statement.condition)}) {{")
            self._block(statement.then, uses, level + 1, lines)
            if statement.otherwise:
                lines.append(f"{indent}}} else {{")
                self._block(statement.otherwise, uses, level + 1, lines)
            lines.append(f"{indent}}}")
        elif isinstance(statement, For):
            name = self.texts[id(statement.variable)] = self.new_name("i")
            lines.append(indent + self.loop_head(statement, name))
            self._block(statement.body, uses, level + 1, lines)
            lines.append(f"{indent}}}")
        elif isinstance(statement, Forever):
            lines.append(f"{indent}{self.endless}")
            self._block(statement.body, uses, level + 1, lines)
            lines.append(f"{indent}}}")

    def new_name(self, letter="t") -> str:
        self.n_names += 1
        return f"{letter}{self.n_names}"

    def text(self, value: Value) -> str:
        if value.is_constant:
            return self.literal(value)
        return self.texts[id(value)]

    def operation(self, value: Value) -> str:
        op, args = value.op, value.args
        if op == "copy":
            return self.text(args[0])
        if op == "input":
            return f"x[{int(args[0].value)}]"
        if op == "parameter":
            return self.parameter(args[0])
        if op == "load":
            return f"{args[0].name}[{self.text(args[1])}]"
        if op == "cast":
            return self.conversion(value.type, args[0])
        if op == "neg":
            return f"-{self.text(args[0])}"
        if op == "invert":
            return f"~{self.text(args[0])}"
        if op == "lnot":
            return f"!{self.text(args[0])}"
        if op in INFIX:
            return self.infix(value, INFIX[op])
        return self.function(value)

    def infix(self, value, sign) -> str:
        a, b = value.args
        return f"{self.text(a)} {sign} {self.text(b)}"

    def conversion(self, type, value) -> str:
        return f"{self.types[type]}({self.text(value)})"

    def literal(self, value: Value) -> str:
        if value.type == BOOL:
            return "true" if value.value else "false"
        if value.type == F32:
            number = float(value.value)
            return self.float_literal(number) if math.isfinite(number) else self.not_finite(value)
        return self.integer_literal(value.type, int(value.value))

    def define(self, type, name, text) -> str:
        return f"{self.types[type]} {name} = {text};"

    def declare(self, type, name, start) -> str:
        return f"{self.types[type]} {name} = {start};" if start else f"{self.types[type]} {name};"

    def declare_array(self, array) -> str:
        return f"{self.types[array.type]} {array.name}[{array.length}];"

    endless = "for (;;) {"

    def loop_head(self, loop, name) -> str:
        type, step = self.types[loop.variable.type], loop.step
        start, stop = self.text(loop.start), self.text(loop.stop)
        more = f"{name} += {self.integer_literal(loop.variable.type, step)}"
        return f"for ({type} {name} = {start}; {name} < {stop}; {more}) {{"


def float_text(number: float) -> str:
    text = f"{number:.9g}"
    return text if any(sign in text for sign in ".e") else text + ".0"


def is_atom(text: str) -> bool:
    return text.replace("_", "a").replace(".", "a").isalnum()


def _count(body, uses):
    for statement in body:
        for value in values_of(statement):
            uses[id(value)] = uses.get(id(value), 0) + 1
        for block in blocks_of(statement):
            _count(block, uses)


def _inlined(body, uses) -> set[int]:
    """Values that are written at their use, if it is the only one and in the same block."""
    depth: dict[int, int] = {}
    unstable: set[int] = set()
    here = {id(each.value) for each in body if isinstance(each, Let)}
    direct = set()
    for statement in body:
        for value in values_of(statement):
            if id(value) in here:
                direct.add(id(value))
    found = set()
    for statement in body:
        if not isinstance(statement, Let):
            continue
        value = statement.value
        args = [arg for arg in value.args if isinstance(arg, Value)]
        if value.op in UNSTABLE or any(
            arg.op == "variable" or (id(arg) in unstable and id(arg) in found) for arg in args
        ):
            unstable.add(id(value))
            continue
        nested = 1 + max((depth.get(id(arg), 0) for arg in args if id(arg) in found), default=0)
        once = uses.get(id(value), 0) == 1 and id(value) in direct
        if once and nested <= MOST_NESTED and value.type not in (I64, U64):
            found.add(id(value))
            depth[id(value)] = nested
    return found
