"""Translation of device functions by tracing them with symbolic values, to a program without calls.

The typed form of each function is followed statement by statement. What is constant is computed,
calls are followed, loops over few constants are unrolled; the rest becomes a statement of the
program. Numba's types decide how every operation rounds and wraps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import typeof
from numba.core import ir, types

from numbanet.exports.arithmetic import constant
from numbanet.exports.branches import Frame, Until
from numbanet.exports.errors import ExportError
from numbanet.exports.expressions import argument_types, bound_values, evaluate
from numbanet.exports.front_end import typed
from numbanet.exports.loops import Loops
from numbanet.exports.memory import UNDEFINED
from numbanet.exports.program import BOOL, F32, F64, I64, Value
from numbanet.exports.views import TYPES, NeedsConstant, Untranslatable, View, scalar_type

MOST_CALLS = 200  # within each other


class Tracer(Loops):
    """Builder of the program of one function.

    Args:
        translations: of functions other than device functions.
        keeps_loops: False for a language without loops and arrays.
        rounds: see Arithmetic.
    """

    def __init__(self, translations: dict, keeps_loops: bool = True, rounds: bool = False):
        super().__init__(rounds)
        self.translations, self.keeps_loops = translations, keeps_loops
        self.arrays_may_exist = keeps_loops
        self.loops_open = 0  # kept loops over ranges around the current statement
        self.frame: Frame | None = None

    def call(self, function, arg_types: tuple, args: tuple) -> Any:
        """Translate a call of a Python function by following it."""
        code = typed(function, argument_types(function, arg_types))
        args = bound_values(function, args)
        frame = Frame(code, {}, self.frame)
        if depth(frame) > MOST_CALLS:
            raise Untranslatable("a function that calls itself")
        frame.variables.update({f"arg.{k}": value for k, value in enumerate(args)})
        before, self.frame = self.frame, frame
        returned = []
        first = min(code.blocks)
        try:
            until = Until(None, None, lambda value: returned.append((self.block, value)))
            self.run(frame, first, None, until)
        except (Untranslatable, NeedsConstant) as error:
            if isinstance(error, NeedsConstant) and before is not None:
                raise  # a loop around the call may be unrolled
            line = self.frame.line
            raise ExportError(self.frame.code.function, str(error), line) from error
        self.frame = before
        return self.merged(returned)

    def execute(self, frame, statement) -> None:
        frame.line = statement.loc.line
        self.frame = frame
        if isinstance(statement, ir.Assign):
            if isinstance(statement.value, ir.Expr) and statement.value.op == "phi":
                return
            self.check_defined(frame, statement.value)
            frame.variables[statement.target.name] = evaluate(self, frame, statement)
        elif isinstance(statement, (ir.SetItem, ir.StaticSetItem)):
            self.set_item(frame, statement)
        elif not isinstance(statement, ir.Del):
            raise Untranslatable(f"a statement of the kind {type(statement).__name__}")

    def check_defined(self, frame, expression) -> None:
        if not isinstance(expression, ir.Expr):
            return
        for each in expression.list_vars():
            if frame.variables.get(each.name) is UNDEFINED:
                if self.loops_open:
                    raise NeedsConstant("a variable without a value before the first round")
                raise Untranslatable("a variable that has no value yet")

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

    def from_python(self, value, numba_type=None):
        """Constant of the program, or the Python object itself."""
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


def depth(frame) -> int:
    n = 0
    while frame is not None:
        frame, n = frame.caller, n + 1
    return n
