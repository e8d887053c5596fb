"""Instructions of a whole warp, as functions for device code: tensor cores and shared memory.

Addresses are bytes of shared memory, uint32; registers of halves are uint32 words of two numbers.
A lane is 4 g + t. Of a 16 x 16 matrix of halves it holds, in four words, columns 2 t and 2 t + 1
of row g, then of row g + 8, then the same of columns + 8; of a 16 x 8 matrix of sums, columns 2 t
and 2 t + 1 of row g, then of row g + 8 (PTX ISA, "Matrix fragments for mma.m16n8k16").
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

WORD, LONG, FLOAT = ir.IntType(32), ir.IntType(64), ir.FloatType()
LLVM_TYPES = {types.uint32: WORD, types.float32: FLOAT, types.uint64: LONG}
LETTERS = {types.uint32: "r", types.float32: "f", types.uint64: "l"}


def emit(builder, context, text, result, n_results, arguments, argument_types, pure=False):
    """Code of one PTX instruction with n_results results of one type; what is not pure stays put.

    In the text, $0 ... are the results, then the arguments.
    """
    results = ["=" + LETTERS[result]] * n_results if n_results else []
    names = results + [LETTERS[kind] for kind in argument_types]
    value_type = LLVM_TYPES.get(result)
    if n_results == 0:
        returned = ir.VoidType()
    elif n_results == 1:
        returned = value_type
    else:
        returned = ir.LiteralStructType([value_type] * n_results)
    function = ir.FunctionType(returned, [LLVM_TYPES[kind] for kind in argument_types])
    constraints = ",".join(names if pure else [*names, "~{memory}"])
    answer = builder.call(
        ir.InlineAsm(function, text, constraints, side_effect=not pure), arguments
    )
    if n_results == 0:
        return context.get_dummy_value()
    if n_results == 1:
        return answer
    values = [builder.extract_value(answer, k) for k in range(n_results)]
    return context.make_tuple(builder, types.UniTuple(result, n_results), values)


def tuple_of(kind, n):
    return types.UniTuple(kind, n)


def matrix_multiply_add(halves):
    """Function (a, b_low, b_high, c): the sums c of a 16 x 8 matrix, plus a [16, 16] b [16, 8].

    a and c are tuples of four registers, b is two words: depths 2 t and 2 t + 1 of column g, then
    depths + 8.
    """
    text = (
        f"mma.sync.aligned.m16n8k16.row.col.f32.{halves}.{halves}.f32 "
        "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    kinds = (types.uint32,) * 6 + (types.float32,) * 4

    @intrinsic
    def mma(typingctx, a, b_low, b_high, c):
        signature = tuple_of(types.float32, 4)(
            tuple_of(types.uint32, 4), types.uint32, types.uint32, tuple_of(types.float32, 4)
        )

        def codegen(context, builder, signature, args):
            a = cgutils.unpack_tuple(builder, args[0], 4)
            c = cgutils.unpack_tuple(builder, args[3], 4)
            operands = [*a, args[1], args[2], *c]
            return emit(builder, context, text, types.float32, 4, operands, kinds, pure=True)

        return signature, codegen

    return mma


MULTIPLY_ADD = {"float16": matrix_multiply_add("f16"), "bfloat16": matrix_multiply_add("bf16")}


def load_matrix(transposed):
    """Function (address): four 8 x 8 matrices of halves, whose rows the lanes' addresses name.

    Lanes 0 to 7 have the rows of the first matrix, 8 to 15 those of the second, and so on.
    """
    how = ".trans" if transposed else ""
    text = f"ldmatrix.sync.aligned.m8n8.x4{how}.shared.b16 {{$0,$1,$2,$3}}, [$4];"

    @intrinsic
    def ldmatrix(typingctx, address):
        def codegen(context, builder, signature, args):
            return emit(builder, context, text, types.uint32, 4, args, (types.uint32,))

        return tuple_of(types.uint32, 4)(types.uint32), codegen

    return ldmatrix


ldmatrix, ldmatrix_transposed = load_matrix(False), load_matrix(True)


@intrinsic
def stmatrix(typingctx, address, words):
    """Store four 8 x 8 matrices of halves, the inverse of ldmatrix; compute capability 9.0."""

    def codegen(context, builder, signature, args):
        words = cgutils.unpack_tuple(builder, args[1], 4)
        text = "stmatrix.sync.aligned.m8n8.x4.shared.b16 [$0], {$1,$2,$3,$4};"
        kinds = (types.uint32,) * 5
        return emit(builder, context, text, None, 0, [args[0], *words], kinds)

    return types.void(types.uint32, tuple_of(types.uint32, 4)), codegen


@intrinsic
def load_words(typingctx, address):
    """Four words at an address that 16 divides."""

    def codegen(context, builder, signature, args):
        text = "ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];"
        return emit(builder, context, text, types.uint32, 4, args, (types.uint32,))

    return tuple_of(types.uint32, 4)(types.uint32), codegen


@intrinsic
def store_words(typingctx, address, words):
    """Four words at an address that 16 divides."""

    def codegen(context, builder, signature, args):
        words = cgutils.unpack_tuple(builder, args[1], 4)
        text = "st.shared.v4.u32 [$0], {$1,$2,$3,$4};"
        kinds = (types.uint32,) * 5
        return emit(builder, context, text, None, 0, [args[0], *words], kinds)

    return types.void(types.uint32, tuple_of(types.uint32, 4)), codegen


@intrinsic
def load_word(typingctx, address):
    def codegen(context, builder, signature, args):
        text = "ld.shared.u32 $0, [$1];"
        return emit(builder, context, text, types.uint32, 1, args, (types.uint32,))

    return types.uint32(types.uint32), codegen


@intrinsic
def load_word_relaxed(typingctx, address):
    """A word that other threads may be changing."""

    def codegen(context, builder, signature, args):
        text = "ld.relaxed.cta.shared.u32 $0, [$1];"
        return emit(builder, context, text, types.uint32, 1, args, (types.uint32,))

    return types.uint32(types.uint32), codegen


@intrinsic
def store_word(typingctx, address, word):
    def codegen(context, builder, signature, args):
        kinds = (types.uint32, types.uint32)
        return emit(builder, context, "st.shared.u32 [$0], $1;", None, 0, args, kinds)

    return types.void(types.uint32, types.uint32), codegen


@intrinsic
def swap_if_zero(typingctx, address, word):
    """Replace a word that is zero, in one step."""

    def codegen(context, builder, signature, args):
        text, kinds = "atom.shared.cas.b32 $0, [$1], 0, $2;", (types.uint32, types.uint32)
        emit(builder, context, text, types.uint32, 1, args, kinds)
        return context.get_dummy_value()

    return types.void(types.uint32, types.uint32), codegen


@intrinsic
def warp_max(typingctx, word):
    """The largest of all lanes' words."""

    def codegen(context, builder, signature, args):
        text = "redux.sync.max.u32 $0, $1, 0xffffffff;"
        return emit(builder, context, text, types.uint32, 1, args, (types.uint32,))

    return types.uint32(types.uint32), codegen


@intrinsic
def copy_words(typingctx, target, source):
    """Start a copy of 16 bytes from global memory to shared memory; see wait_for_copies."""

    def codegen(context, builder, signature, args):
        text = "cp.async.cg.shared.global [$0], [$1], 16;"
        kinds = (types.uint32, types.uint64)
        return emit(builder, context, text, None, 0, args, kinds)

    return types.void(types.uint32, types.uint64), codegen


@intrinsic
def copy_bytes(typingctx, target, source, n_bytes):
    """As copy_words for the first n_bytes of the 16, and zeros for the rest.

    The source is not touched where n_bytes is 0.
    """

    def codegen(context, builder, signature, args):
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        kinds = (types.uint32, types.uint64, types.uint32)
        return emit(builder, context, text, None, 0, args, kinds)

    return types.void(types.uint32, types.uint64, types.uint32), codegen


@intrinsic
def close_group(typingctx):
    """Make a group of the copies that this thread has started since the last group, if any."""

    def codegen(context, builder, signature, args):
        return emit(builder, context, "cp.async.commit_group;", None, 0, [], ())

    return types.void(), codegen


@intrinsic
def wait_for_older_groups(typingctx):
    """Wait for all groups of copies of this thread but the last one."""

    def codegen(context, builder, signature, args):
        return emit(builder, context, "cp.async.wait_group 1;", None, 0, [], ())

    return types.void(), codegen


@intrinsic
def wait_for_copies(typingctx):
    """Wait for all copies that this thread has started."""

    def codegen(context, builder, signature, args):
        return emit(builder, context, "cp.async.wait_all;", None, 0, [], ())

    return types.void(), codegen


@intrinsic
def store_words_to(typingctx, address, words):
    """Four words to global memory, at an address that 16 divides."""

    def codegen(context, builder, signature, args):
        words = cgutils.unpack_tuple(builder, args[1], 4)
        text = "st.global.v4.u32 [$0], {$1,$2,$3,$4};"
        kinds = (types.uint64, *(types.uint32,) * 4)
        return emit(builder, context, text, None, 0, [args[0], *words], kinds)

    return types.void(types.uint64, tuple_of(types.uint32, 4)), codegen


@intrinsic
def load_words_from(typingctx, address):
    """Four words of global memory, at an address that 16 divides."""

    def codegen(context, builder, signature, args):
        text = "ld.global.v4.u32 {$0,$1,$2,$3}, [$4];"
        return emit(builder, context, text, types.uint32, 4, args, (types.uint64,))

    return tuple_of(types.uint32, 4)(types.uint64), codegen


@intrinsic
def load_word_from(typingctx, address):
    """A word of global memory that this kernel may have written."""

    def codegen(context, builder, signature, args):
        text = "ld.global.u32 $0, [$1];"
        return emit(builder, context, text, types.uint32, 1, args, (types.uint64,))

    return types.uint32(types.uint64), codegen


@intrinsic
def store_word_to(typingctx, address, word):
    """A word to global memory."""

    def codegen(context, builder, signature, args):
        kinds = (types.uint64, types.uint32)
        return emit(builder, context, "st.global.u32 [$0], $1;", None, 0, args, kinds)

    return types.void(types.uint64, types.uint32), codegen


@intrinsic
def warp_barrier(typingctx):
    """Wait for all lanes of the warp, and see what they wrote to shared memory."""

    def codegen(context, builder, signature, args):
        return emit(builder, context, "bar.warp.sync 0xffffffff;", None, 0, [], ())

    return types.void(), codegen


@intrinsic
def shared_memory(typingctx):
    """The address of the shared memory that a launch asks for; 16 divides it."""

    def codegen(context, builder, signature, args):
        name, module = "dynamic_shared_memory", builder.module
        if name in module.globals:
            storage = module.globals[name]
        else:
            storage = cgutils.add_global_variable(module, ir.ArrayType(ir.IntType(8), 0), name, 3)
            storage.linkage, storage.align = "external", 16
        return builder.trunc(builder.ptrtoint(storage, LONG), WORD)

    return types.uint32(), codegen
