"""Operations of the machine on single values that Python has no notation for."""

from llvmlite import ir
from numba import types
from numba.core.cpu import CPUContext
from numba.core.errors import TypingError
from numba.extending import intrinsic

from numbanet.architecture import AMPERE, emit_compute_capability
from numbanet.ptx import emit

TWO_FLOATS = types.float32, types.float32


def special_register_for(name):
    """Function (anchor) for CUDA: a special register, read again when the anchor changes.

    So neither it nor what follows from it holds a register throughout a loop.
    """

    @intrinsic
    def read(typingctx, anchor):
        def codegen(context, builder, signature, args):
            return emit(context, builder, f"mov.u32 $0, %{name};", types.uint32, [anchor], args)

        return types.uint32(anchor), codegen

    return read


lane_number, thread_index_for = special_register_for("laneid"), special_register_for("tid.x")
blocks_per_grid_for = special_register_for("nctaid.x")


@intrinsic
def floor_to_int(typingctx, x):
    """Floor of a float32 of at most 2^30 in magnitude, as int32."""

    def codegen(context, builder, signature, args):
        if not isinstance(context, CPUContext):
            text = "cvt.rmi.s32.f32 $0, $1;"
            return emit(context, builder, text, types.int32, [types.float32], args)
        integer = ir.IntType(32)
        truncated = builder.fptosi(args[0], integer)  # a floor might be a library call
        is_above = builder.fcmp_ordered("<", args[0], builder.sitofp(truncated, ir.FloatType()))
        return builder.sub(truncated, builder.zext(is_above, integer))

    return types.int32(types.float32), codegen


@intrinsic
def opaque(typingctx, n):
    """The uint32 or uint64 itself, hidden from the compiler's analysis on CUDA.

    For an index that becomes an address: LLVM would add constants to it in 32 bits where it knows
    that they suffice, when a GPU's load adds them to 64 bits for nothing. For an address: LLVM
    would compute it again in each branch.
    """

    def codegen(context, builder, signature, args):
        if isinstance(context, CPUContext):
            return args[0]
        return emit(context, builder, f"mov.b{n.bitwidth} $0, $1;", n, [n], args)

    return n(n), codegen


@intrinsic
def in_register(typingctx, constant, x):
    """The finite float32 constant itself, on CUDA computed as 0 x + constant.

    An instruction holds one constant. This one leaves the place to another where both are asked
    for, which the assembler would otherwise move to a register first.
    """

    def codegen(context, builder, signature, args):
        if isinstance(context, CPUContext):
            return args[0]
        text = "fma.rn.f32 $0, $1, 0f00000000, $2;"
        return emit(context, builder, text, types.float32, TWO_FLOATS, args[::-1])

    return types.float32(*TWO_FLOATS), codegen


@intrinsic
def select(typingctx, condition, if_true, if_false):
    """`if_true if condition else if_false` without a branch: LLVM would sink work into one."""
    if if_true != if_false:
        raise TypingError(f"select: the two values have types {if_true} and {if_false}")

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return if_true(types.boolean, if_true, if_true), codegen


def bound(comparison, ptx):
    """Function (x, limit) for one side: the limit where x exceeds it, and NaN where x is NaN."""

    @intrinsic
    def bound(typingctx, x, limit):
        def codegen(context, builder, signature, args):
            is_beyond = builder.fcmp_ordered(comparison, *args)
            bounded = builder.select(is_beyond, args[1], args[0])
            if isinstance(context, CPUContext):
                return bounded
            text = f"{ptx}.NaN.f32 $0, $1, $2;"  # two instructions become one
            one = emit(context, builder, text, types.float32, TWO_FLOATS, args)
            has_it = builder.icmp_signed(
                ">=", emit_compute_capability(builder), ir.IntType(32)(int(AMPERE))
            )
            return builder.select(has_it, one, bounded)

        return types.float32(*TWO_FLOATS), codegen

    return bound


# Unlike min and max, which may turn a NaN into the limit.
at_least, at_most = bound("<", "max"), bound(">", "min")


@intrinsic
def float_from_bits(typingctx, bits):
    """Float32 with these 32 bits; the inverse of float_bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen
