"""Values of the expressions of Numba's IR."""

import inspect
import operator

from numba.core import ir, types

from numbanet.exports.arithmetic import constant
from numbanet.exports.elements import element
from numbanet.exports.program import BOOL, F32, I64, Value
from numbanet.exports.views import (
    TYPES,
    Range,
    Untranslatable,
    View,
    scalar_type,
)  # fmt: skip
from numbanet.unsigned import REPLACEMENTS

OPERATORS = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.truediv: "div",
    operator.floordiv: "floordiv", operator.mod: "mod", operator.lshift: "shl",
    operator.rshift: "shr", operator.and_: "and", operator.or_: "or", operator.xor: "xor",
    operator.pow: "pow", operator.eq: "eq", operator.ne: "ne", operator.lt: "lt",
    operator.le: "le", operator.gt: "gt", operator.ge: "ge",
    operator.iadd: "add", operator.isub: "sub", operator.imul: "mul", operator.itruediv: "div",
    operator.ifloordiv: "floordiv", operator.imod: "mod", operator.ilshift: "shl",
    operator.irshift: "shr", operator.iand: "and", operator.ior: "or", operator.ixor: "xor",
    operator.ipow: "pow",
}  # fmt: skip
OPERATORS |= {instead: OPERATORS[function] for function, instead in REPLACEMENTS.items()}
STAR = types.StarArgTuple, types.StarArgUniTuple  # types of `*name`
UNARY = {operator.neg: "neg", operator.invert: "invert", operator.not_: "lnot", operator.pos: None}


def evaluate(tracer, frame, statement):
    """Value of an assignment: a Value, a tuple, a view, a range, or a Python object."""
    value, name = statement.value, statement.target.name
    if isinstance(value, ir.Arg):
        return frame.variables[f"arg.{value.index}"]
    if isinstance(value, ir.Var):
        return frame.variables[value.name]
    if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)):
        return tracer.from_python(value.value, frame.code.typemap.get(name))
    if not isinstance(value, ir.Expr):
        raise Untranslatable(f"an expression of the kind {type(value).__name__}")
    handler = HANDLERS.get(value.op)
    if handler is None:
        raise Untranslatable(f"an expression of the kind {value.op!r}")
    return handler(tracer, frame, value, name)


def signature_of(frame, expression):
    return frame.code.calltypes[expression]


def binary(tracer, frame, expression, name):
    a, b = frame.variables[expression.lhs.name], frame.variables[expression.rhs.name]
    function = expression.fn
    if not isinstance(a, Value) or not isinstance(b, Value):
        return python_operation(function, a, b)
    signature = signature_of(frame, expression)
    op = OPERATORS.get(function)
    if op is None:
        raise Untranslatable(f"the operator {function_name(function)}")
    kinds = [scalar_type(each) for each in signature.args]
    if BOOL in kinds and op in ("and", "or", "xor") and kinds[0] == kinds[1]:
        return tracer.binary(op, BOOL, a, b)
    result = scalar_type(signature.return_type)
    if op in ("eq", "ne", "lt", "le", "gt", "ge"):
        kind = kinds[0] if kinds[0] == kinds[1] else common(kinds)
        if BOOL in kinds:
            kind = I64 if kind == BOOL else kind
        return tracer.binary(op, kind, tracer.cast(a, kind), tracer.cast(b, kind))
    if op == "div" and result == F32:
        return tracer.binary("div", F32, tracer.cast(a, F32), tracer.cast(b, F32))
    return tracer.binary(op, result, tracer.cast(a, result), tracer.cast(b, result))


def common(kinds):
    for kind in ("f64", "f32"):
        if kind in kinds:
            return kind
    if "i64" in kinds or {"i32", "u32"} <= set(kinds):
        return "i64"
    return max(kinds)


def python_operation(function, a, b):
    """Operation on tuples or on other objects, such as `is None`."""
    if function in (operator.is_, operator.is_not):
        return constant(BOOL, (a is b) == (function is operator.is_))
    if OPERATORS.get(function) == "add" and isinstance(a, tuple) and isinstance(b, tuple):
        return (*a, *b)
    raise Untranslatable(f"the operator {function_name(function)} on these objects")


def unary(tracer, frame, expression, name):
    value = frame.variables[expression.value.name]
    op = UNARY[expression.fn]
    if op is None:
        return value
    if op == "lnot":
        return tracer.unary("lnot", tracer.truth(value))
    kind = scalar_type(signature_of(frame, expression).return_type)
    if value.type == BOOL:
        value = tracer.cast(value, kind)
    return tracer.cast(tracer.unary(op, value), kind)  # first in its own type, as Numba does


def attribute(tracer, frame, expression, name):
    owner = frame.variables[expression.value.name]
    if isinstance(owner, View):
        if expression.attr == "shape":
            return (owner.length,)
        if expression.attr == "size":
            return owner.length
        raise Untranslatable(f"`.{expression.attr}` of an array")
    if isinstance(owner, Value):
        raise Untranslatable(f"`.{expression.attr}` of a number")
    found = getattr(owner, expression.attr)
    return found if isinstance(owner, tuple) else tracer.from_python(found)


def item(tracer, frame, expression, name):
    owner = frame.variables[expression.value.name]
    index = expression.index
    if isinstance(index, ir.Var):
        index = frame.variables[index.name]
    elif getattr(expression, "index_var", None) is not None:
        index = frame.variables[expression.index_var.name]
    else:
        index = tracer.from_python(index)
    return element(tracer, owner, index)


def build_tuple(tracer, frame, expression, name):
    return tuple(frame.variables[each.name] for each in expression.items)


def unpack(tracer, frame, expression, name):
    return frame.variables[expression.value.name]


class Iterator:
    """Iterator over the items of a loop that is unrolled."""

    def __init__(self, over):
        self.over, self._numbers = over, None

    def next(self):
        if self._numbers is None:
            self._numbers = iter(steps(self.over))
        return next(self._numbers)


def steps(over):
    """Items of a loop that is unrolled: members of a tuple, or numbers of a constant range."""
    if not isinstance(over, Range):
        return over
    if not all(each.is_constant for each in over):
        raise Untranslatable("a loop whose length is known only at run time")
    numbers = range(*(int(each.value) for each in over))
    return [constant(over.start.type, number) for number in numbers]


def iterator(tracer, frame, expression, name):
    over = frame.variables[expression.value.name]
    if not isinstance(over, tuple) or isinstance(over, View):
        raise Untranslatable("a loop over anything but a range or a tuple")
    return Iterator(over)


def next_of(tracer, frame, expression, name):
    try:
        return frame.variables[expression.value.name].next(), constant(BOOL, True)
    except StopIteration:
        return None, constant(BOOL, False)


def cast(tracer, frame, expression, name):
    value = frame.variables[expression.value.name]
    kind = types.unliteral(frame.code.typemap[name])
    if isinstance(value, Value) and kind in TYPES:
        return tracer.cast(value, TYPES[kind])
    if isinstance(value, tuple) and isinstance(kind, types.BaseTuple):
        members = [
            tracer.cast(each, TYPES[types.unliteral(k)])
            if isinstance(each, Value) and types.unliteral(k) in TYPES
            else each
            for each, k in zip(value, kind.types, strict=True)
        ] if not isinstance(value, (View, Range)) else value  # fmt: skip
        if isinstance(value, (View, Range)):
            return value
        return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
    return value


def call(tracer, frame, expression, name):
    function = frame.variables[expression.func.name]
    args = [frame.variables[each.name] for each in expression.args]
    if expression.vararg is not None:
        args += frame.variables[expression.vararg.name]
    keywords = {key: frame.variables[value.name] for key, value in expression.kws}
    signature = signature_of(frame, expression)
    translation = tracer.translations.get(function) if is_hashable(function) else None
    if translation is not None:
        return translation(tracer, signature, *args, **keywords)
    if isinstance(function, type) and issubclass(function, tuple) and hasattr(function, "_fields"):
        return function(*args, **keywords)
    python = getattr(function, "py_func", None)
    if python is None:
        raise Untranslatable(f"a call of {function_name(function)}, which is not a device function")
    bound = inspect.signature(python).bind(*args, **keywords)
    bound.apply_defaults()
    return tracer.call(python, signature.args, tuple(map(tracer.from_python, bound.args)))


def bound_values(function, values) -> tuple:
    """Values of the parameters, one for each; those that `*name` takes are one."""
    bound = inspect.signature(function).bind(*values)
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def argument_types(function, found) -> tuple:
    """Types of a function's parameters; those that `*name` takes are one."""
    flat = []
    for each in found:
        flat += each.types if isinstance(each, STAR) else [types.unliteral(each)]
    shape = inspect.signature(function)
    bound = shape.bind(*flat).arguments
    return tuple(
        types.StarArgTuple(bound.get(name, ()))
        if parameter.kind is parameter.VAR_POSITIONAL
        else bound.get(name, types.Omitted(parameter.default))
        for name, parameter in shape.parameters.items()
    )


def function_name(function) -> str:
    name = getattr(function, "__name__", None) or getattr(function, "_name", None)
    return repr(name or str(function))


def is_hashable(function) -> bool:
    try:
        hash(function)
    except TypeError:
        return False
    return True


HANDLERS = {
    "binop": binary, "inplace_binop": binary, "unary": unary, "getattr": attribute,
    "getitem": item, "static_getitem": item, "typed_getitem": item, "build_tuple": build_tuple,
    "exhaust_iter": unpack, "getiter": iterator, "iternext": next_of, "cast": cast, "call": call,
    "pair_first": lambda t, f, e, n: f.variables[e.value.name][0],
    "pair_second": lambda t, f, e, n: f.variables[e.value.name][1],
}  # fmt: skip
