"""Threads and blocks, for device code: indices, shared memory and barriers.

Said to LLVM, so that kernels are defined without numba-cuda. Numbers are unsigned and have 32 bits:
what is computed from them indexes without a test for negative indices. Numba widens their products
and sums, so wrap those in np.uint32.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.device import device
from numbanet.device.local import array_over, literal
from numbanet.ptx import ANYTHING, MEMORY, instruction

WARP = 32
SHARED_MEMORY = 3  # NVVM's address space
INTEGER = ir.IntType(32)
TWO_FLOATS = ir.VectorType(ir.FloatType(), 2)


def special_register(name):
    """Function () for device code: value of a special register of PTX, as uint32."""

    @intrinsic
    def read(typingctx):
        def codegen(context, builder, signature, args):
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(INTEGER, []), f"llvm.nvvm.read.ptx.sreg.{name}"
            )
            return builder.call(function, [])

        return types.uint32(), codegen

    return read


thread_index, threads_per_block = special_register("tid.x"), special_register("ntid.x")
block_index, blocks_per_grid = special_register("ctaid.x"), special_register("nctaid.x")
block_index_y, block_index_z = special_register("ctaid.y"), special_register("ctaid.z")
thread_index_y, threads_per_block_y = special_register("tid.y"), special_register("ntid.y")
thread_index_z, threads_per_block_z = special_register("tid.z"), special_register("ntid.z")


@device
def thread_number():  # of all threads along x
    return block_index() * threads_per_block() + thread_index()


@device
def n_threads():  # along x
    return blocks_per_grid() * threads_per_block()


@device
def thread_in_block():  # in the order in which threads form warps
    row = thread_index_z() * threads_per_block_y() + thread_index_y()
    return row * threads_per_block() + thread_index()


@device
def threads_in_block():  # in all dimensions
    rows = threads_per_block_y() * threads_per_block_z()
    return rows * threads_per_block()


stop = instruction("trap;", types.void, effect=ANYTHING)  # the launch fails


@intrinsic
def barrier(typingctx):
    """Wait for all threads of the block; their writes are then visible."""

    def codegen(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.nvvm.barrier0"
        )
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def barrier_or(typingctx, condition):
    """Barrier that returns whether the condition holds for any thread of the block."""

    def codegen(context, builder, signature, args):
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(INTEGER, [INTEGER]), "llvm.nvvm.barrier0.or"
        )
        answer = builder.call(function, [builder.zext(args[0], INTEGER)])
        return builder.icmp_unsigned("!=", answer, INTEGER(0))

    return types.boolean(types.boolean), codegen


# (number, n): wait for n threads of the block, whole warps, that call this with the same number, 1
# to 15. The block's own barrier is number 0.
group_barrier = instruction(
    "bar.sync $0, $1;", types.void, types.uint32, types.uint32, effect=MEMORY
)


@intrinsic
def shared_array(typingctx, n):
    """Float32 array of `n` elements, one per block; `n` is known at compile time."""
    length, array_type = literal(n, "shared_array"), types.Array(types.float32, 1, "C")

    def codegen(context, builder, signature, args):
        whole = ir.ArrayType(ir.FloatType(), length)
        name = builder.module.get_unique_name("shared")
        storage = cgutils.add_global_variable(builder.module, whole, name, SHARED_MEMORY)
        storage.linkage, storage.align = "internal", 16
        storage.initializer = ir.Constant(storage.type.pointee, ir.Undefined)
        generic = builder.addrspacecast(storage, whole.as_pointer())
        shape = [context.get_constant(types.intp, length)]
        return array_over(context, builder, array_type, generic, shape)

    return array_type(n), codegen


@intrinsic
def load_shared_pair(typingctx, array, i):
    """Elements at i, an even number, and i + 1 of a shared array, in one access."""
    result = types.UniTuple(types.float32, 2)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        index = context.cast(builder, args[1], signature.args[1], types.intp)
        pointer = builder.addrspacecast(
            builder.gep(array.data, [index]), ir.PointerType(ir.FloatType(), SHARED_MEMORY)
        )
        pair = builder.load(builder.bitcast(pointer, ir.PointerType(TWO_FLOATS, SHARED_MEMORY)))
        pair.align = 8
        values = [builder.extract_element(pair, INTEGER(k)) for k in range(2)]
        return context.make_tuple(builder, result, values)

    return result(array, i), codegen


def shuffle(text):
    """Function (x, lane) -> x of another lane; all lanes of a warp take part."""
    return instruction(text, types.float32, types.float32, types.uint32, effect=ANYTHING)


# (x, distance): of the lane whose number differs in the bits of `distance`.
exchange = shuffle("shfl.sync.bfly.b32 $0, $1, $2, 31, -1;")


@device
def warp_sum(x):  # on every lane
    for k in range(5):
        x += exchange(x, np.uint32(1 << k))
    return x
