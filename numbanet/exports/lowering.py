"""Lowering of 64-bit integers to pairs of 32-bit ones, for languages that lack them."""

from numbanet.exports.arithmetic import COMPARISONS, Arithmetic, constant
from numbanet.exports.program import (
    BOOL,
    F32,
    I32,
    I64,
    LONG,
    U32,
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
    without_unused,
)  # fmt: skip
from numbanet.exports.views import Untranslatable

SIGN = 2**31


def lowered(program: Program) -> Program:
    """Equal program without 64-bit numbers, and without the upper half of a product."""
    body = without_unused(_Lowering().block_of(program.body))
    return Program(program.n_inputs, program.n_outputs, program.arrays, body)


class _Lowering(Arithmetic):
    def __init__(self):
        self.block: list = []
        self.pairs: dict[int, tuple[Value, Value]] = {}
        self.singles: dict[int, Value] = {}

    def emit(self, op, type, args, low=None, high=None) -> Value:
        value = Value(op, type, args, low, high)
        self.block.append(Let(value))
        return value

    def block_of(self, body: list) -> list:
        before, self.block = self.block, []
        for statement in body:
            self.statement(statement)
        result, self.block = self.block, before
        return result

    def statement(self, statement) -> None:
        if isinstance(statement, Let):
            self.let(statement.value)
        elif isinstance(statement, (Declare, Assign)):
            self.assignment(statement)
        elif isinstance(statement, Store):
            parts = self.single(statement.index), self.single(statement.value)
            self.block.append(Store(statement.array, *parts))
        elif isinstance(statement, If):
            condition = self.single(statement.condition)
            ways = self.block_of(statement.then), self.block_of(statement.otherwise)
            self.block.append(If(condition, *ways))
        elif isinstance(statement, For):
            if statement.variable.type in LONG:
                self.counted(statement)
                return
            ends = self.single(statement.start), self.single(statement.stop)
            body = self.block_of(statement.body)
            self.block.append(For(statement.variable, *ends, statement.step, body))
        elif isinstance(statement, Forever):
            self.block.append(Forever(self.block_of(statement.body)))
        else:
            self.block.append(statement)

    def counted(self, loop: For) -> None:
        """Loop with 64-bit bounds, as one that ends by a condition."""
        variable, type = loop.variable, loop.variable.type
        is_over = Value("ge", BOOL, (variable, loop.stop))
        after = Value("add", type, (variable, constant(type, loop.step)))
        self.statement(Declare(variable, loop.start))
        head, end = [Let(is_over), If(is_over, [Break()])], [Let(after), Assign(variable, after)]
        self.statement(Forever([*head, *loop.body, *end]))

    def single(self, value: Value) -> Value:
        return self.singles.get(id(value), value)

    def pair(self, value: Value) -> tuple[Value, Value]:
        """Lower and upper half, uint32."""
        if value.is_constant:
            number = int(value.value)
            return constant(U32, number), constant(U32, number >> 32)
        return self.pairs[id(value)]

    def assignment(self, statement) -> None:
        variable = statement.variable
        source = statement.start if isinstance(statement, Declare) else statement.value
        if variable.type not in LONG:
            source = None if source is None else self.single(source)
            self.block.append(type(statement)(variable, source))
            return
        halves = self.pairs.setdefault(
            id(variable), (Value("variable", U32), Value("variable", U32))
        )
        sources = (None, None) if source is None else self.pair(source)
        for half, each in zip(halves, sources, strict=True):
            self.block.append(type(statement)(half, each))

    def let(self, value: Value) -> None:
        is_long = value.type in LONG
        reads_long = any(isinstance(arg, Value) and arg.type in LONG for arg in value.args)
        if is_long:
            self.pairs[id(value)] = self.long(value)
        elif reads_long:
            self.singles[id(value)] = self.short(value)
        elif value.op == "mulhi":
            self.singles[id(value)] = self.upper(*map(self.single, value.args))
        else:
            args = [self.single(arg) if isinstance(arg, Value) else arg for arg in value.args]
            if all(a is b for a, b in zip(args, value.args, strict=True)):
                self.block.append(Let(value))
            else:
                self.singles[id(value)] = self.emit(
                    value.op, value.type, tuple(args), value.low, value.high
                )

    # 32-bit operations

    def u32(self, op, a, b) -> Value:
        return self.binary(op, U32, a, b)

    def upper(self, a: Value, b: Value) -> Value:
        """Upper 32 bits of a product, from products of 16 bits."""
        half, mask = constant(U32, 16), constant(U32, 0xFFFF)
        a0, a1 = self.u32("and", a, mask), self.u32("shr", a, half)
        b0, b1 = self.u32("and", b, mask), self.u32("shr", b, half)
        middle = self.u32(
            "add", self.u32("mul", a1, b0), self.u32("shr", self.u32("mul", a0, b0), half)
        )
        low = self.u32("add", self.u32("and", middle, mask), self.u32("mul", a0, b1))
        high = self.u32("add", self.u32("mul", a1, b1), self.u32("shr", middle, half))
        return self.u32("add", high, self.u32("shr", low, half))

    # Long results

    def long(self, value: Value) -> tuple[Value, Value]:
        op, args = value.op, value.args
        if op == "cast":
            return self.widened(args[0])
        if op == "copy":
            return tuple(self.emit("copy", U32, (half,)) for half in self.pair(args[0]))
        if op == "select":
            condition = self.single(args[0])
            halves = zip(self.pair(args[1]), self.pair(args[2]), strict=True)
            return tuple(self.select(condition, *each) for each in halves)
        if op in ("and", "or", "xor"):
            halves = zip(self.pair(args[0]), self.pair(args[1]), strict=True)
            return tuple(self.u32(op, *each) for each in halves)
        if op in ("shl", "shr"):
            return self.shifted(value)
        if op in ("floordiv", "mod"):
            return self.divided(value)
        if op == "invert":
            return tuple(self.unary("invert", half) for half in self.pair(args[0]))
        if op in ("min", "max"):
            a, b = args
            is_less = self.less(*((a, b) if op == "min" else (b, a)))
            halves = zip(self.pair(a), self.pair(b), strict=True)
            return tuple(self.select(is_less, *each) for each in halves)
        (a0, a1), (b0, b1) = map(self.pair, args)
        if op == "mul":
            cross = self.u32("add", self.u32("mul", a0, b1), self.u32("mul", a1, b0))
            return self.u32("mul", a0, b0), self.u32("add", self.upper(a0, b0), cross)
        low, high = self.u32(op, a0, b0), self.u32(op, a1, b1)
        wraps = self.u32("lt", low, a0) if op == "add" else self.u32("lt", a0, b0)
        return low, self.u32(op, high, self.cast(wraps, U32))

    def widened(self, value: Value) -> tuple[Value, Value]:
        if value.type in LONG:
            return self.pair(value)
        value = self.single(value)
        if value.type == F32:  # it has no use beyond 32 bits
            number = self.cast(value, I32)
            return self.widened(number)
        zero = constant(U32, 0)
        if value.type != I32 or value.low >= 0:
            return self.cast(value, U32), zero
        sign = self.binary("shr", I32, value, constant(I32, 31))
        return self.cast(value, U32), self.cast(sign, U32)

    def shifted(self, value):
        a, n = value.args
        if not n.is_constant:
            raise Untranslatable(
                "a shift of 64 bits by what is known only at run time; shift a uint32 by a uint32"
            )
        n, (low, high) = int(n.value), self.pair(a)
        zero, left = constant(U32, 0), value.op == "shl"
        is_signed = not left and value.type == I64
        near, far = (low, high) if left else (high, low)
        back = "shr" if left else "shl"
        if n >= 32:
            empty = self.down(near, 31) if is_signed else zero
            far = (
                self.down(near, n - 32)
                if is_signed
                else self.u32(value.op, near, constant(U32, n - 32))
            )
            near = empty
        elif n > 0:
            over = self.u32(back, near, constant(U32, 32 - n))
            far = self.u32("or", self.u32(value.op, far, constant(U32, n)), over)
            near = self.down(near, n) if is_signed else self.u32(value.op, near, constant(U32, n))
        return (near, far) if left else (far, near)

    def down(self, upper: Value, n: int) -> Value:
        """Arithmetic shift to the right."""
        number = self.cast(upper, I32)
        return self.cast(self.binary("shr", I32, number, constant(I32, n)), U32)

    def divided(self, value):
        """Schoolbook division, bit by bit, of numbers that are not negative."""
        (a0, a1), (b0, b1) = map(self.pair, value.args)
        zero, one = constant(U32, 0), constant(U32, 1)
        rest, quotient = ([Value("variable", U32) for _ in range(2)] for _ in range(2))
        for variable in (*rest, *quotient):
            self.block.append(Declare(variable, zero))
        counter = Value("variable", U32, (), 0, 63)
        outer, self.block = self.block, []
        from_top = self.u32("sub", constant(U32, 63), counter)
        is_upper = self.u32("ge", from_top, constant(U32, 32))
        place = self.u32("and", from_top, constant(U32, 31))
        digit = self.u32("and", self.u32("shr", self.select(is_upper, a1, a0), place), one)
        carry = self.u32("shr", rest[0], constant(U32, 31))
        r1 = self.u32("or", self.u32("shl", rest[1], one), carry)
        r0 = self.u32("or", self.u32("shl", rest[0], one), digit)
        is_less = self.less_pairs((r0, r1), (b0, b1))
        low = self.u32("sub", r0, b0)
        borrow = self.cast(self.u32("lt", r0, b0), U32)
        high = self.u32("sub", self.u32("sub", r1, b1), borrow)
        bit = self.select(is_less, zero, self.u32("shl", one, place))
        results = [self.select(is_less, r0, low), self.select(is_less, r1, high)]
        results.append(self.u32("or", quotient[0], self.select(is_upper, zero, bit)))
        results.append(self.u32("or", quotient[1], self.select(is_upper, bit, zero)))
        copies = [self.emit("copy", U32, (each,)) for each in results]
        for variable, copy in zip((*rest, *quotient), copies, strict=True):
            self.block.append(Assign(variable, copy))
        body, self.block = self.block, outer
        self.block.append(For(counter, zero, constant(U32, 64), 1, body))
        return tuple(quotient if value.op == "floordiv" else rest)

    # Short results

    def short(self, value: Value) -> Value:
        op, args = value.op, value.args
        if op in COMPARISONS:
            return self.comparison(op, *args)
        low, high = self.pair(args[0])
        if value.type == BOOL:
            return self.u32("ne", self.u32("or", low, high), constant(U32, 0))
        if value.type == F32:
            return self.to_float(args[0].type, low, high)
        return self.cast(low, value.type)

    def to_float(self, type, low, high) -> Value:
        """Convert to float32, negative numbers through their magnitude."""
        is_negative = constant(BOOL, False)
        if type == I64:
            zero = constant(U32, 0)
            is_negative = self.u32("ge", high, constant(U32, SIGN))
            borrow = self.cast(self.u32("ne", low, zero), U32)
            opposite = self.u32("sub", self.u32("sub", zero, high), borrow)
            low = self.select(is_negative, self.u32("sub", zero, low), low)
            high = self.select(is_negative, opposite, high)
        scaled = self.binary("mul", F32, self.cast(high, F32), constant(F32, 2.0**32))
        number = self.binary("add", F32, scaled, self.cast(low, F32))
        return self.select(is_negative, self.unary("neg", number), number)

    def comparison(self, op, a, b) -> Value:
        if op in ("eq", "ne"):
            (a0, a1), (b0, b1) = self.pair(a), self.pair(b)
            differs = self.u32("or", self.u32("xor", a0, b0), self.u32("xor", a1, b1))
            return self.u32(op, differs, constant(U32, 0))
        found = self.less(b, a) if op in ("gt", "le") else self.less(a, b)
        return found if op in ("lt", "gt") else self.unary("lnot", found)

    def less(self, a, b) -> Value:
        (a0, a1), (b0, b1) = self.pair(a), self.pair(b)
        if a.type == I64:
            flip = constant(U32, SIGN)
            a1, b1 = self.u32("xor", a1, flip), self.u32("xor", b1, flip)
        return self.less_pairs((a0, a1), (b0, b1))

    def less_pairs(self, a, b) -> Value:
        upper_equal = self.u32("eq", a[1], b[1])
        return self.select(upper_equal, self.u32("lt", a[0], b[0]), self.u32("lt", a[1], b[1]))
