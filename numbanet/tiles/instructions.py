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
from numba.types import float32, uint32, uint64, void

from numbanet.ptx import MEMORY, instruction

FOUR_WORDS, FOUR_FLOATS = types.UniTuple(uint32, 4), types.UniTuple(float32, 4)


def matrix_multiply_add(halves):
    """Function (a, b_low, b_high, c): the sums c of a 16 x 8 matrix, plus a [16, 16] b [16, 8].

    a and c are tuples of four registers, b is two words: depths 2 t and 2 t + 1 of column g, then
    depths + 8.
    """
    text = (
        f"mma.sync.aligned.m16n8k16.row.col.f32.{halves}.{halves}.f32 "
        "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};"
    )
    return instruction(text, FOUR_FLOATS, FOUR_WORDS, uint32, uint32, FOUR_FLOATS)


MULTIPLY_ADD = {"float16": matrix_multiply_add("f16"), "bfloat16": matrix_multiply_add("bf16")}
# The same of float32 of which only the upper 19 bits count, [16, 8] by [8, 8]. A lane holds of the
# 16 x 8 matrix column t of row g, then of row g + 8, then the same of columns + 4; of the 8 x 8
# matrix, depths t and t + 4 of column g.
multiply_add_tf32 = instruction(
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
    *(FOUR_FLOATS, FOUR_WORDS, uint32, uint32, FOUR_FLOATS),
)


def access(text, result, *kinds):
    """Function for device code: one instruction that accesses memory, or waits for accesses."""
    return instruction(text, result, *kinds, effect=MEMORY)


# Four 8 x 8 matrices of halves, whose rows the lanes' addresses name: lanes 0 to 7 have the rows of
# the first matrix, 8 to 15 those of the second, and so on. Stores take compute capability 9.0.
MATRICES = "sync.aligned.m8n8.x4"
ldmatrix = access(f"ldmatrix.{MATRICES}.shared.b16 {{$0,$1,$2,$3}}, [$4];", FOUR_WORDS, uint32)
ldmatrix_transposed = access(
    f"ldmatrix.{MATRICES}.trans.shared.b16 {{$0,$1,$2,$3}}, [$4];", FOUR_WORDS, uint32
)
stmatrix = access(
    f"stmatrix.{MATRICES}.shared.b16 [$0], {{$1,$2,$3,$4}};", void, uint32, FOUR_WORDS
)

# Words of shared memory, whose addresses are uint32. The size of an access divides its address.
load_word = access("ld.shared.u32 $0, [$1];", uint32, uint32)
load_words = access("ld.shared.v4.u32 {$0,$1,$2,$3}, [$4];", FOUR_WORDS, uint32)
load_two_words = access("ld.shared.v2.u32 {$0,$1}, [$2];", types.UniTuple(uint32, 2), uint32)
store_word = access("st.shared.u32 [$0], $1;", void, uint32, uint32)
store_words = access("st.shared.v4.u32 [$0], {$1,$2,$3,$4};", void, uint32, FOUR_WORDS)
# A word that other threads may be changing; (address, word): replaced in one step if it is zero.
load_word_relaxed = access("ld.relaxed.cta.shared.u32 $0, [$1];", uint32, uint32)
swap_if_zero = access("atom.shared.cas.b32 $0, [$1], 0, $2;", uint32, uint32, uint32)

# Words of global memory, whose addresses are uint64, and which this kernel may have written.
load_word_from = access("ld.global.u32 $0, [$1];", uint32, uint64)
load_two_words_from = access("ld.global.v2.u32 {$0,$1}, [$2];", types.UniTuple(uint32, 2), uint64)
load_words_from = access("ld.global.v4.u32 {$0,$1,$2,$3}, [$4];", FOUR_WORDS, uint64)
store_word_to = access("st.global.u32 [$0], $1;", void, uint64, uint32)
store_words_to = access("st.global.v4.u32 [$0], {$1,$2,$3,$4};", void, uint64, FOUR_WORDS)

# Copies of 16 bytes from global memory to shared memory, (target, source), that only start: a
# thread waits for them, or makes a group of those since its last group and waits for all but one.
# copy_bytes takes how many of the 16 are copied, and writes zeros for the rest; for none of them
# the source is not touched.
copy_words = access("cp.async.cg.shared.global [$0], [$1], 16;", void, uint32, uint64)
copy_bytes = access("cp.async.cg.shared.global [$0], [$1], 16, $2;", void, uint32, uint64, uint32)
close_group = access("cp.async.commit_group;", void)
wait_for_older_groups = access("cp.async.wait_group 1;", void)
wait_for_copies = access("cp.async.wait_all;", void)

# Maximum of words over a warp; and a barrier, after which shared memory is visible to all lanes.
warp_max = access("redux.sync.max.u32 $0, $1, 0xffffffff;", uint32, uint32)
warp_barrier = access("bar.warp.sync 0xffffffff;", void)


@intrinsic
def shared_memory(typingctx):
    """Address of the shared memory that a launch requests; a multiple of 16."""

    def codegen(context, builder, signature, args):
        name, module = "dynamic_shared_memory", builder.module
        if name in module.globals:
            storage = module.globals[name]
        else:
            storage = cgutils.add_global_variable(module, ir.ArrayType(ir.IntType(8), 0), name, 3)
            storage.linkage, storage.align = "external", 16
        return builder.trunc(builder.ptrtoint(storage, ir.IntType(64)), ir.IntType(32))

    return types.uint32(), codegen
