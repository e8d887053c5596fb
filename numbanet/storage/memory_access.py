"""Single accesses to device memory that Numba has no notation for: two numbers at once, reductions.

Each takes an array and the index of the first element that it touches.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.ptx import MEMORY, emit, instruction
from numbanet.storage.halves import ROUND_PAIR
from numbanet.storage.views import GLOBAL_MEMORY


def pointer_to(context, builder, signature, args, element):
    """Pointer into global memory to `element`s, at the array and the index that come first."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    pointer = builder.gep(array.data, [index])
    in_global_memory = ir.PointerType(pointer.type.pointee, GLOBAL_MEMORY)
    pointer = builder.addrspacecast(pointer, in_global_memory)
    return builder.bitcast(pointer, ir.PointerType(element, GLOBAL_MEMORY))


WORD = ir.IntType(32)
TWO_FLOATS, FOUR_FLOATS = (ir.VectorType(ir.FloatType(), n) for n in (2, 4))
TWO_WORDS = ir.VectorType(WORD, 2)


@intrinsic
def load_halves(typingctx, array, i):
    """Load two neighbouring halves as one 32-bit word."""

    def codegen(context, builder, signature, args):
        loaded = builder.load(pointer_to(context, builder, signature, args, WORD))
        loaded.align = 4
        return loaded

    return types.uint32(array, i), codegen


@cache
def load_words_in(precision, n):
    """Function (array, i): load 2 n neighbouring numbers, as a tuple of n words of halves.

    Those of the precision are one access, whose address is to be a multiple of 4 n. Float32 are
    read four at a time, or two, and rounded to it.
    """
    width = min(2 * n, 4)
    floats, halves = ir.VectorType(ir.FloatType(), width), ir.VectorType(WORD, n)

    @intrinsic
    def load_words_in(typingctx, array, i):
        if array.dtype != types.float32:
            return vector_load(halves, array, i, types.uint32)
        result = types.UniTuple(types.uint32, n)

        def codegen(context, builder, signature, args):
            first, numbers = pointer_to(context, builder, signature, args, floats), []
            for k in range(2 * n // width):
                loaded = builder.load(builder.gep(first, [WORD(k)]))
                loaded.align = 4 * width
                numbers += [builder.extract_element(loaded, WORD(q)) for q in range(width)]
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            kinds, text = (types.float32,) * 2, f"{ROUND_PAIR[precision]} $0, $2, $1;"
            words = [emit(context, builder, text, types.uint32, kinds, pair) for pair in pairs]
            return context.make_tuple(builder, result, words)

        return result(array, i), codegen

    return load_words_in


@intrinsic
def store_halves(typingctx, array, i, word):
    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature, args, WORD)
        builder.store(args[2], pointer).align = 4
        return context.get_dummy_value()

    return types.void(array, i, types.uint32), codegen


@intrinsic
def swap_word_if_equal(typingctx, array, i, expected, word):
    """Compare-and-swap of a word: returns the old value; stores `word` if it was `expected`."""

    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature, args, WORD)
        swapped = builder.cmpxchg(pointer, args[2], args[3], "monotonic", "monotonic")
        return builder.extract_value(swapped, 0)

    return types.uint32(array, i, types.uint32, types.uint32), codegen


@intrinsic
def add_to_word(typingctx, array, i, value):
    """Atomic array[i] += value; returns the old value."""

    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature, args, WORD)
        return builder.atomic_rmw("add", pointer, args[2], "monotonic")

    return types.uint32(array, i, types.uint32), codegen


def vector_load(vector, array, i, kind=types.float32):
    """Typing and code of an intrinsic: the 32-bit elements of a vector, in one access."""
    n = vector.count
    result = types.UniTuple(kind, n)

    def codegen(context, builder, signature, args):
        loaded = builder.load(pointer_to(context, builder, signature, args, vector))
        loaded.align = 4 * n
        values = [builder.extract_element(loaded, WORD(k)) for k in range(n)]
        return context.make_tuple(builder, result, values)

    return result(array, i), codegen


def vector_store(vector, array, i, *values):
    """Typing and code of an intrinsic: write the 32-bit elements of a vector in one access."""
    n = vector.count

    def codegen(context, builder, signature, args):
        whole = ir.Constant(vector, ir.Undefined)
        for k in range(n):
            whole = builder.insert_element(whole, args[2 + k], WORD(k))
        pointer = pointer_to(context, builder, signature, args, vector)
        builder.store(whole, pointer).align = 4 * n
        return context.get_dummy_value()

    return types.void(array, i, *values), codegen


@intrinsic
def load_two_floats(typingctx, array, i):
    return vector_load(TWO_FLOATS, array, i)


@intrinsic
def load_four_floats(typingctx, array, i):
    return vector_load(FOUR_FLOATS, array, i)


@intrinsic
def store_two_floats(typingctx, array, i, low, high):
    return vector_store(TWO_FLOATS, array, i, *(types.float32,) * 2)


@intrinsic
def store_four_floats(typingctx, array, i, a, b, c, d):
    return vector_store(FOUR_FLOATS, array, i, *(types.float32,) * 4)


@intrinsic
def store_two_words(typingctx, array, i, low, high):
    return vector_store(TWO_WORDS, array, i, *(types.uint32,) * 2)


# (address, value): add to an int32 in shared memory, whose addresses are uint32.
add_shared_int32 = instruction(
    "red.shared.add.u32 [$0], $1;", types.void, types.uint32, types.int32, effect=MEMORY
)
round_to_int32 = instruction("cvt.rni.s32.f32 $0, $1;", types.int32, types.float32)  # the nearest


round_to_int64 = instruction("cvt.rni.s64.f32 $0, $1;", types.int64, types.float32)


def reduction(text, array, i, *values):
    """Typing and code of an intrinsic: one PTX instruction that adds to memory.

    The operand $0 is the address.
    """

    def codegen(context, builder, signature, args):
        pointer = pointer_to(context, builder, signature, args, ir.IntType(8))
        operands = [builder.ptrtoint(pointer, ir.IntType(64)), *args[2:]]
        kinds = types.uint64, *values
        return emit(context, builder, text, types.void, kinds, operands, MEMORY)

    return types.void(array, i, *values), codegen


@intrinsic
def reduce_float32(typingctx, array, i, value):
    return reduction("red.global.add.f32 [$0], $1;", array, i, types.float32)


@intrinsic
def reduce_int64(typingctx, array, i, value):
    return reduction("red.global.add.u64 [$0], $1;", array, i, types.int64)


@intrinsic
def reduce_two_float32(typingctx, array, i, low, high):  # for compute capability 9.0 and more
    text = "red.global.add.v2.f32 [$0], {$1, $2};"
    return reduction(text, array, i, types.float32, types.float32)


@intrinsic
def reduce_float16x2(typingctx, array, i, word):
    return reduction("red.global.add.noftz.f16x2 [$0], $1;", array, i, types.uint32)


@intrinsic
def reduce_bfloat16x2(typingctx, array, i, word):  # for compute capability 9.0 and more
    return reduction("red.global.add.noftz.bf16x2 [$0], $1;", array, i, types.uint32)
