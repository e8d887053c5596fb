"""Loops of device functions with a number of iterations that is known at compile time."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.cpu import CPUContext
from numba.extending import intrinsic

from numbanet.device.local import literal


def calls(typingctx, n, body, arguments, emit):
    """Signature and code of an intrinsic that calls body(k, *arguments) for k = 0 ... n - 1."""
    n_calls = literal(n, "a loop of calls")
    call = typingctx.resolve_function_type(body, (types.intp, *arguments), {})

    def codegen(context, builder, signature, args):
        function = context.get_function(body, call)
        values = cgutils.unpack_tuple(builder, args[2])
        emit(context, builder, n_calls, lambda k: function(builder, [k, *values]))
        context.add_linking_libs(getattr(function, "libs", ()))
        return context.get_dummy_value()

    return types.void(n, body, types.StarArgTuple(arguments)), codegen


def emit_calls(context, builder, n, call):
    for k in range(n):
        call(context.get_constant(types.intp, k))


class LoopOptions(ir.MDValue):
    """Metadata of one loop: a node that refers to itself, which llvmlite cannot express."""

    def __init__(self, module, *options):
        nodes = [module.add_metadata([ir.MetaDataString(module, option)]) for option in options]
        super().__init__(module, nodes, str(len(module.metadata)))

    def descr(self, buf):
        nodes = ", ".join(node.get_reference() for node in (self, *self.operands))
        buf.append(f"distinct !{{ {nodes} }}\n")


def emit_loop(context, builder, n, call):
    """Emit a loop that is not unrolled before LLVM vectorises it."""
    if not isinstance(context, CPUContext):
        emit_calls(context, builder, n, call)
        return
    with cgutils.for_range(builder, context.get_constant(types.intp, n)) as loop:
        call(loop.index)
        body = builder.block
    options = LoopOptions(builder.module, "llvm.loop.unroll.disable")
    body.terminator.set_metadata("llvm.loop", options)


@intrinsic
def unrolled(typingctx, n, body, *arguments):
    """body(k, *arguments) for k = 0 ... n - 1, as n calls; `n` is known at compile time.

    Once inlined, whatever depends on k alone is a constant: indices, entries of tuples, branches.
    LLVM unrolls a loop only if it is small, and never one whose bounds depend on another loop's k.
    """
    return calls(typingctx, n, body, arguments, emit_calls)


@intrinsic
def vectorized(typingctx, n, body, *arguments):
    """`unrolled` on CUDA; on the CPU, a loop that LLVM can turn into vector instructions."""
    return calls(typingctx, n, body, arguments, emit_loop)
