"""Single PTX instructions as functions for device code."""

from inspect import Parameter, Signature

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LETTERS = {
    types.uint16: "h",
    types.int32: "r",
    types.uint32: "r",
    types.int64: "l",
    types.uint64: "l",
    types.float32: "f",
}
# What an instruction does beside its result. What does anything is not left out, nor moved past
# others of its kind.
NOTHING, ANYTHING, MEMORY = "nothing", "anything", "memory"


def flat(kinds):
    """Types of single registers: those of tuples one by one."""
    for kind in kinds:
        yield from flat(kind) if isinstance(kind, types.BaseTuple) else (kind,)


def emit(context, builder, text, result, kinds, values, effect=NOTHING):
    """Emit an instruction; returns a value of type `result`, which may be a tuple or void.

    In the text, $0 ... are the registers of the result, then those of the values.
    """
    results = [] if result == types.void else list(flat([result]))
    kinds = list(flat(kinds))
    llvm_types = [context.get_value_type(kind) for kind in (*results, *kinds)]
    registers, returned = llvm_types[len(results) :], ir.VoidType()
    if results:
        returned = llvm_types[0]
        if len(results) > 1:
            returned = ir.LiteralStructType(llvm_types[: len(results)])
    constraints = ["=" + LETTERS[kind] for kind in results] + [LETTERS[kind] for kind in kinds]
    if effect == MEMORY:
        constraints.append("~{memory}")
    instruction = ir.InlineAsm(
        ir.FunctionType(returned, registers), text, ",".join(constraints), effect != NOTHING
    )
    answer = builder.call(instruction, values)
    if len(results) > 1:
        answers = [builder.extract_value(answer, k) for k in range(len(results))]
        return context.make_tuple(builder, result, answers)
    return answer if results else context.get_dummy_value()


def instruction(text, result, *kinds, effect=NOTHING):
    """Function for device code that is one instruction; see emit. Arguments may be tuples."""

    def instruction(typingctx, *arguments):
        def codegen(context, builder, signature, args):
            values = []
            for kind, value in zip(kinds, args, strict=True):
                is_tuple = isinstance(kind, types.BaseTuple)
                values += cgutils.unpack_tuple(builder, value) if is_tuple else [value]
            return emit(context, builder, text, result, kinds, values, effect)

        return result(*kinds), codegen

    names = "typingctx", *(f"argument_{k}" for k in range(len(kinds)))
    parameters = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names]
    instruction.__signature__ = Signature(parameters)  # Numba would make a tuple of `arguments`
    return intrinsic(instruction)
