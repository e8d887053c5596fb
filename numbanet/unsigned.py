"""NumPy's rule for unsigned integers in device code: an int takes the other operand's type.

Two uint32 make a uint32, modulo 2^32, and so do a uint32 and an int; a uint64 and an int make a
uint64. Numba, for which an int has 64 bits, makes int64, uint64 and float64 of these. A GPU would
need two registers for such an index, and two instructions for arithmetic with it.

Comparisons are left to Numba: they are exact, whatever the types.
"""

import operator
from functools import cache

from numba import types
from numba.core import rewrites
from numba.extending import intrinsic

NAMES = "add", "sub", "mul", "floordiv", "mod", "lshift", "rshift", "and_", "or_", "xor"
IN_PLACE = tuple("i" + name.strip("_") for name in NAMES)


def operands(left, right) -> tuple:
    """Types to which two operands are converted; None leaves them to Numba."""
    both = {left, right}
    if both <= {types.uint32, types.int64} and types.uint32 in both:
        return types.uint32, types.uint32
    if both == {types.uint64, types.int64}:
        return types.uint64, types.uint64
    return left, right


def by_numpys_rule(operation):
    """Function (left, right) for device code: an operator of Numba by this rule."""

    @intrinsic
    def apply(typingctx, left, right):
        converted = operands(left, right)
        wide = typingctx.resolve_function_type(operation, converted, {})
        narrows = converted == (types.uint32, types.uint32)
        signature = types.uint32(*converted) if narrows else wide

        def codegen(context, builder, signature, args):
            pairs = zip(args, signature.args, wide.args, strict=True)
            args = [context.cast(builder, *each) for each in pairs]
            function = context.get_function(operation, wide)
            context.add_linking_libs(getattr(function, "libs", ()))
            result = function(builder, args)
            return context.cast(builder, result, wide.return_type, signature.return_type)

        return signature, codegen

    return apply


OPERATORS = [getattr(operator, name) for name in (*NAMES, *IN_PLACE)]
REPLACEMENTS = {operation: by_numpys_rule(operation) for operation in OPERATORS}


def follow(function):
    """Mark a function, wherever it was written, to be compiled by this rule."""
    function.follows_numpys_rule = True
    return function


def follows(function) -> bool:
    """Whether a function is compiled by this rule: a marked one, or one of numbanet's."""
    return hasattr(function, "follows_numpys_rule") or is_ours(function.__module__)


def is_ours(module: str | None) -> bool:
    return (module or "").partition(".")[0] == "numbanet"


@cache
def teach(rewrites) -> None:
    """Make one of Numba's two compilers follow the rule: the functions above replace operators.

    Args:
        rewrites: the compiler's module of rewrites before type inference.
    """

    @rewrites.register_rewrite("before-inference")
    class NumPysRule(rewrites.Rewrite):
        def match(self, func_ir, block, typemap, calltypes):
            self.block, self.found = block, []
            if follows(func_ir.func_id.func):
                binary = *block.find_exprs("binop"), *block.find_exprs("inplace_binop")
                self.found = [each for each in binary if each.fn in REPLACEMENTS]
            return bool(self.found)

        def apply(self):
            for expression in self.found:
                expression.fn = REPLACEMENTS[expression.fn]
                if expression.op == "inplace_binop":  # Numba's form for immutable values
                    expression.immutable_fn = REPLACEMENTS[expression.immutable_fn]
            return self.block


teach(rewrites)
