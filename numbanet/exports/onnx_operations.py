"""Programs as ONNX operators on arrays of samples."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from numbanet.exports import onnx_bits
from numbanet.exports.program import (
    BOOL,
    F32,
    I32,
    I64,
    INTEGERS,
    RANGES,
    U32,
    U64,
    Assign,
    Break,
    Declare,
    Forever,
    If,
    Let,
    Program,
    Store,
    Value,
)  # fmt: skip
from numbanet.exports.views import Untranslatable

BINARY = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "floordiv": "Div", "mod": "Mod",
    "min": "Min", "max": "Max", "pow": "Pow", "eq": "Equal", "lt": "Less", "le": "LessOrEqual",
    "gt": "Greater", "ge": "GreaterOrEqual",
}  # fmt: skip
BITWISE = {"and": "BitwiseAnd", "or": "BitwiseOr", "xor": "BitwiseXor"}
LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}
UNARY = {
    "neg": "Neg", "abs": "Abs", "lnot": "Not", "sqrt": "Sqrt", "exp": "Exp", "log": "Log",
    "sin": "Sin", "cos": "Cos", "tan": "Tan", "tanh": "Tanh", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh",
    "cosh": "Cosh", "invert": "BitwiseNot",
}  # fmt: skip
TYPES = {F32: np.float32, BOOL: np.bool_, **dict.fromkeys((U32, I32, U64, I64), np.int64)}
MASK = 0xFFFFFFFF
MOST, LEAST = 2**63 - 1, -(2**63)  # of int64, which stands for uint64 too: the bits are the same
MOST_ROUNDS = 64  # of a loop whose end is known only at run time


class Operations:
    """Nodes and constants of a graph."""

    def __init__(self):
        self.nodes: list = []
        self.constants: list = []
        self.names: dict[int, str] = {}
        self.known: dict[tuple, str] = {}
        self.n_names = 0
        self.unfinished: str | None = None  # samples whose loops had no end yet

    def new_name(self) -> str:
        self.n_names += 1
        return f"v{self.n_names}"

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        """Add a node; returns the name of its only output."""
        name = self.new_name()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.known:
            self.known[key] = name = f"c{len(self.known)}"
            self.constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return self.known[key]

    def number(self, value, kind=np.int64) -> str:
        if kind is np.int64:
            value = (int(value) - LEAST) % 2**64 + LEAST
        return self.constant(np.array(value, kind))

    def part(self, name: str, first: int, length: int, shape: tuple[int, ...]) -> str:
        """Part of a vector as an array of that shape."""
        ends = [self.constant(np.array([end], np.int64)) for end in (first, first + length)]
        found = self.add("Slice", name, *ends)
        return self.add("Reshape", found, self.constant(np.array(shape, np.int64)))

    def stacked(self, columns: list[str]) -> str:
        """Array whose columns are vectors of [n] numbers each."""
        axis = self.constant(np.array([1], np.int64))
        return self.add("Concat", *(self.add("Unsqueeze", each, axis) for each in columns), axis=1)

    def columns(self, program: Program, inputs: list[str] | None = None) -> list[str]:
        """Outputs of a program; its inputs are the columns of "x" unless given."""
        if inputs is None:
            inputs = [
                self.add("Gather", "x", self.number(k), axis=1) for k in range(program.n_inputs)
            ]
        self.inputs, self.names, self.outputs, self.unfinished = inputs, {}, {}, None
        self.run(program.body, None)
        if self.unfinished is not None:
            nan = self.number(np.nan, np.float32)
            for k, name in self.outputs.items():
                self.outputs[k] = self.add("Where", self.unfinished, nan, name)
        like = self.add("Mul", inputs[0], self.number(0, np.float32)) if inputs else None
        return [self.spread(self.outputs[k], like) for k in range(program.n_outputs)]

    def spread(self, name: str, like: str | None) -> str:
        """Number for each sample, broadcast if it is one for all."""
        shape = self.add("Shape", like)
        return self.add("Expand", name, shape)

    def run(self, body: list, active: str | None) -> None:
        """Translate statements; those below a condition affect the samples for which it holds."""
        for statement in body:
            if isinstance(statement, Let):
                self.names[id(statement.value)] = self.operation(statement.value)
            elif isinstance(statement, Declare):
                start = statement.start
                if start is not None:
                    self.names[id(statement.variable)] = self.name(start)
            elif isinstance(statement, Assign):
                self.assign(statement, active)
            elif isinstance(statement, Store):
                self.outputs[int(statement.index.value)] = self.name(statement.value)
            elif isinstance(statement, If):
                condition = self.name(statement.condition)
                self.run(statement.then, self.both(active, condition))
                if statement.otherwise:
                    self.run(statement.otherwise, self.both(active, self.add("Not", condition)))
            elif isinstance(statement, Forever):
                self.loop(statement.body, active)
            else:
                raise Untranslatable("a loop that ends early or has an unknown length")

    def both(self, active, condition):
        return condition if active is None else self.add("And", active, condition)

    def assign(self, statement, active) -> None:
        key, value = id(statement.variable), self.name(statement.value)
        if active is not None:
            before = self.names.get(key)
            if before is None:
                before = self.number(0, TYPES[statement.variable.type])
            value = self.chosen(statement.variable.type, active, value, before)
        self.names[key] = value

    def chosen(self, type: str, condition: str, if_true: str, if_false: str) -> str:
        """Selection of one of two numbers; ONNX Runtime has no Where for truth values."""
        if type != BOOL:
            return self.add("Where", condition, if_true, if_false)
        otherwise = self.add("And", self.add("Not", condition), if_false)
        return self.add("Or", self.add("And", condition, if_true), otherwise)

    def loop(self, body: list, active: str | None) -> None:
        """Loop that ends by a condition, of at most MOST_ROUNDS; outputs are NaN beyond."""
        for _ in range(MOST_ROUNDS):
            for statement in body:
                self.run([each for each in [statement] if not is_end(each)], active)
                if is_end(statement):
                    condition = self.name(statement.condition)
                    self.run(statement.then[:-1], self.both(active, condition))
                    active = self.both(active, self.add("Not", condition))
        before = self.unfinished
        self.unfinished = active if before is None else self.add("Or", before, active)

    # Values

    def name(self, value: Value) -> str:
        if value.is_constant:
            return self.number(value.value, TYPES[value.type])
        return self.names[id(value)]

    def operation(self, value: Value) -> str:
        op, args = value.op, value.args
        if op == "copy":
            return self.name(args[0])
        if op == "input":
            return self.inputs[int(args[0].value)]
        if op == "parameter":
            return self.add("Gather", "parameters", self.name(args[0]))
        if op == "cast":
            return self.converted(value, args[0])
        if op == "select":
            return self.chosen(value.type, *map(self.name, args))
        if op in ("float_to_bits", "bits_to_float"):
            return onnx_bits.BITS[op](self, self.name(args[0]))
        if op in ("shl", "shr"):
            return self.shifted(value)
        if op == "mulhi":
            return self.halved(self.add("Mul", *map(self.name, args)), 32)
        if op in ("floordiv", "mod", "lt", "le", "gt", "ge") and args[0].type == U64:
            return self.unsigned(op, *args)
        if op in BITWISE and value.type == BOOL:
            return self.add(LOGICAL[op], *map(self.name, args))
        if op in BITWISE:
            return self.add(BITWISE[op], *map(self.name, args))
        if op == "ne":
            return self.add("Not", self.add("Equal", *map(self.name, args)))
        if op in onnx_bits.COMPOSED:
            return onnx_bits.COMPOSED[op](self, self.name(args[0]))
        if op in BINARY:
            return self.in_range(value, self.add(BINARY[op], *map(self.name, args)))
        if op in UNARY:
            return self.in_range(value, self.add(UNARY[op], *map(self.name, args)))
        raise Untranslatable(f"the operation {op!r}")

    def in_range(self, value: Value, name: str) -> str:
        """Integer modulo 2^32, unless the bounds of the operation prove it in range."""
        least, most = {U32: (0, MASK), I32: (-(2**31), 2**31 - 1)}.get(value.type, (None, None))
        if least is None or (value.low, value.high) != (least, most):
            return name
        return self.wrapped(name, value.type)

    def wrapped(self, name: str, type: str) -> str:
        mask = self.number(MASK)
        if type == U32:
            return self.add("BitwiseAnd", name, mask)
        half = self.number(2**31)
        shifted = self.add("BitwiseAnd", self.add("Add", name, half), mask)
        return self.add("Sub", shifted, half)

    def unsigned(self, op: str, a: Value, b: Value) -> str:
        """Operation on uint64 that differs from that on the bits as int64."""
        first, second = self.name(a), self.name(b)
        if a.high <= MOST and b.high <= MOST:
            return self.add(BINARY[op], first, second)
        if op not in ("floordiv", "mod"):
            flip = self.number(LEAST)
            return self.add(BINARY[op], self.add("Add", first, flip), self.add("Add", second, flip))
        if op == "floordiv" or b.high > 2**62:
            raise Untranslatable("a division of numbers of 64 bits")
        half = self.add("Mod", self.halved(first, 1), second)
        bit = self.add("BitwiseAnd", first, self.number(1))
        both = self.add("Add", self.add("Mul", half, self.number(2)), bit)
        return self.add("Mod", both, second)

    def halved(self, name: str, n: int) -> str:
        """Bits of an int64 shifted right by n >= 1, with zeros in front."""
        even = self.add("BitwiseAnd", name, self.number(-2))
        half = self.add("Div", even, self.number(2))
        quarter = self.number(2**62)
        lifted = self.add("Add", self.add("Add", half, quarter), quarter)
        is_negative = self.add("Less", name, self.number(0))
        half = self.add("Where", is_negative, lifted, half)
        return half if n == 1 else self.add("Div", half, self.number(2 ** (n - 1)))

    def converted(self, value: Value, source: Value) -> str:
        name = self.name(source)
        if value.type == F32:
            return self.add("Cast", name, to=TensorProto.FLOAT)
        if source.type in INTEGERS:
            if value.type in (I64, U64):
                return name  # the same bits
            least, most = RANGES[value.type]
            fits = least <= source.low and source.high <= most
            return name if fits else self.wrapped(name, value.type)
        whole = self.add("Cast", name, to=TensorProto.INT64)
        return whole if source.type == BOOL else self.in_range(value, whole)

    def shifted(self, value: Value) -> str:
        number, amount = value.args
        if amount.is_constant:
            factor = self.number(2 ** int(amount.value))
        else:
            powers = self.constant(2 ** np.arange(32, dtype=np.int64))
            factor = self.add("Gather", powers, self.name(amount))
        name = self.name(number)
        if value.op == "shr" and value.type == U64 and number.high > MOST:
            if not amount.is_constant:
                raise Untranslatable("a shift of 64 bits by what is known only at run time")
            return self.halved(name, int(amount.value)) if amount.value else name
        if value.op == "shl":
            return self.in_range(value, self.add("Mul", name, factor))
        if number.low >= 0:
            return self.add("Div", name, factor)
        rest = self.add("Mod", name, factor)  # never negative, while Div rounds towards zero
        return self.add("Div", self.add("Sub", name, rest), factor)


def is_end(statement) -> bool:
    return isinstance(statement, If) and any(isinstance(each, Break) for each in statement.then)
