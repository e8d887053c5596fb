"""Who a thread is, and how the threads of a warp or a block work together, in device code.

Unsigned 32-bit numbers throughout: what is computed from them indexes without a test for negative
indices. Numba widens their products and sums, so wrap those in np.uint32.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.device import device

WARP = 32


def special_register(name):
    """Function for device code that reads a special register."""

    @intrinsic
    def register(typingctx):
        def codegen(context, builder, signature, args):
            function_type = ir.FunctionType(ir.IntType(32), [])
            read = f"llvm.nvvm.read.ptx.sreg.{name}"
            return builder.call(
                cgutils.get_or_insert_function(builder.module, function_type, read), []
            )

        return types.uint32(), codegen

    return register


thread_index, threads_per_block = special_register("tid.x"), special_register("ntid.x")
block_index, blocks_per_grid = special_register("ctaid.x"), special_register("nctaid.x")
block_index_y, block_index_z = special_register("ctaid.y"), special_register("ctaid.z")


@device
def thread_number():  # of all threads along x
    return np.uint32(block_index() * threads_per_block() + thread_index())


@device
def n_threads():  # along x
    return np.uint32(blocks_per_grid() * threads_per_block())


@intrinsic
def exchange(typingctx, x, distance):
    """The x of the lane whose number differs in the bits of `distance`; all lanes take part."""

    def codegen(context, builder, signature, args):
        function = ir.FunctionType(ir.FloatType(), [ir.FloatType(), ir.IntType(32)])
        text = "shfl.sync.bfly.b32 $0, $1, $2, 31, -1;"
        instruction = ir.InlineAsm(function, text, "=f,f,r", side_effect=True)  # not to be moved
        return builder.call(instruction, args)

    return types.float32(types.float32, types.uint32), codegen


@device
def warp_sum(x):  # on every lane
    for k in range(5):
        x += exchange(x, np.uint32(1 << k))
    return x
