"""Matrix products on the CPU, from one register-blocked micro-kernel written as LLVM vectors.

The block of C that the micro-kernel computes, `rows` x (`vectors` x `lanes`), stays in registers
while it walks along the depth; each step loads `vectors` vectors of B and broadcasts `rows`
elements of A. This is the scheme of Goto and van de Geijn 2008. Loops over arrays cannot express
it: LLVM keeps such blocks in memory. The vectors are LLVM's own types, so the same code serves
AVX-512, AVX, NEON and SSE.
"""

from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from numbanet.device import device


@cache
def lanes() -> int:
    """Number of float32 in a vector register of the processor that Numba compiles for."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    if "+avx512f" in features:
        return 16
    return 8 if "+avx," in features else 4


@cache
def rows(n_lanes: int) -> int:
    """Rows of C per block: 8 where there are 32 vector registers, 4 with the 16 of AVX.

    Of AVX these are the last rows; the others are taken by blocks of TALL_ROWS. A processor that
    starts two multiply-adds per cycle, and ends one after five, needs ten results under way.
    """
    return 4 if n_lanes == 8 else 8


TALL_ROWS = 6  # 12 vectors of results, of 16 registers


@cache
def micro_kernel(n_rows: int, n_vectors: int, n_lanes: int):
    """Device function (a, b, c, depth, accumulate) that computes one block C (+)= A B.

    The operands are as those of matrix_product.
    """
    vector = ir.VectorType(ir.FloatType(), n_lanes)
    index = ir.IntType(64)
    fused = ("contract",)  # lets LLVM join multiplication and addition

    @intrinsic
    def block(typing, a, b, c, depth, accumulate):
        def codegen(context, builder, signature, args):
            def operand(k):  # a pointer to its first element, and its strides
                kinds = signature.args[k].types
                array, *sizes = cgutils.unpack_tuple(builder, args[k])
                start, *strides = (
                    context.cast(builder, size, kind, types.intp)
                    for size, kind in zip(sizes, kinds[1:], strict=True)
                )
                data = context.make_array(kinds[0])(context, builder, array).data
                return builder.gep(data, [start]), *strides

            def constant(n):
                return ir.Constant(index, n)

            def as_vector(address):
                return builder.bitcast(address, vector.as_pointer())

            def load(address):
                value = builder.load(as_vector(address))
                value.align = 4
                return value

            def broadcast(scalar):
                undefined = ir.Constant(vector, ir.Undefined)
                single = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
                zeros = ir.Constant(ir.VectorType(ir.IntType(32), n_lanes), None)
                return builder.shuffle_vector(single, undefined, zeros)

            a_start, a_row, a_depth = operand(0)
            (b_start, b_depth), (c_start, c_row) = operand(1), operand(2)
            depth, accumulate = args[3:]
            places = [
                builder.gep(c_start, [builder.add(builder.mul(c_row, constant(r)), constant(k))])
                for r in range(n_rows)
                for k in range(0, n_vectors * n_lanes, n_lanes)
            ]
            zero = ir.Constant(vector, None)
            storage = [cgutils.alloca_once_value(builder, zero) for _ in places]
            with builder.if_then(accumulate):
                for place, register in zip(places, storage, strict=True):
                    builder.store(load(place), register)
            with cgutils.for_range(builder, depth) as loop:
                a_k = builder.gep(a_start, [builder.mul(loop.index, a_depth)])
                b_k = builder.gep(b_start, [builder.mul(loop.index, b_depth)])
                columns = [
                    load(builder.gep(b_k, [constant(v * n_lanes)])) for v in range(n_vectors)
                ]
                for r in range(n_rows):
                    scalar = builder.load(builder.gep(a_k, [builder.mul(a_row, constant(r))]))
                    row = broadcast(scalar)
                    for v, column in enumerate(columns):
                        register = storage[r * n_vectors + v]
                        product = builder.fmul(row, column, flags=fused)
                        total = builder.fadd(builder.load(register), product, flags=fused)
                        builder.store(total, register)
            for place, register in zip(places, storage, strict=True):
                store = builder.store(builder.load(register), as_vector(place))
                store.align = 4
            return context.get_dummy_value()

        return types.void(a, b, c, types.intp, types.boolean), codegen

    return block


@device
def rows_of(a, i):
    array, start, row_stride, depth_stride = a
    return array, start + i * row_stride, row_stride, depth_stride


@device
def columns_of(b, j):
    array, start, depth_stride = b
    return array, start + j, depth_stride


@device
def place_in(c, i, j):
    array, start, row_stride = c
    return array, start + i * row_stride + j, row_stride


@cache
def matrix_product(n_lanes: int = 0):
    """Device function (n_rows, n_columns, depth, a, b, c, accumulate): C (+)= A B.

    The operands are tuples of a 1-D float32 array, where the matrix starts in it, and its strides:
    a = (array, start, row stride, depth stride), b = (array, start, depth stride) and
    c = (array, start, row stride), with contiguous columns of B and C. n_columns is a multiple of
    16; rows of A and C up to the next multiple of `rows` are read and written too. What is
    constant where it is called is constant here, since it is inlined.

    Args:
        n_lanes: float32 in a vector, of which a pair or one divides 16; 0 for `lanes()`.
    """
    n_lanes = n_lanes or lanes()
    n_rows_block, has_tall = rows(n_lanes), n_lanes == 8
    tall = micro_kernel(TALL_ROWS, 2, n_lanes)
    wide = micro_kernel(n_rows_block, 2, n_lanes)
    narrow = micro_kernel(n_rows_block, 1, n_lanes)

    @device
    def matrix_product(n_rows, n_columns, depth, a, b, c, accumulate):
        n_tall = 0
        if has_tall:  # two by two, so that whole blocks of the others are left
            n_tall = (n_rows + n_rows_block - 1) // (2 * TALL_ROWS) * (2 * TALL_ROWS)
        n_wide = n_columns // (2 * n_lanes) * (2 * n_lanes)
        for j in range(0, n_wide, 2 * n_lanes):
            if has_tall:
                for i in range(0, n_tall, TALL_ROWS):
                    tall(rows_of(a, i), columns_of(b, j), place_in(c, i, j), depth, accumulate)
            for i in range(n_tall, n_rows, n_rows_block):
                wide(rows_of(a, i), columns_of(b, j), place_in(c, i, j), depth, accumulate)
        for j in range(n_wide, n_columns, n_lanes):
            for i in range(0, n_rows, n_rows_block):
                narrow(rows_of(a, i), columns_of(b, j), place_in(c, i, j), depth, accumulate)

    return matrix_product
