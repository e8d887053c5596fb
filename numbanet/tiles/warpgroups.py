"""Products of halves by four warps together: the tensor cores of compute capability 9.0.

They read the second matrix from shared memory by themselves, once for 64 rows; each warp has a
fragment of 16 rows in its registers, as for the products of fragments.py. A matrix lies in pieces
of 16 bytes, 8 halves: below each other those of all rows, then those of the next 8 columns
(PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions").
"""

from functools import cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.device import device
from numbanet.ptx import ANYTHING, MEMORY, emit, instruction
from numbanet.tiles.copies import PIECE, PIECE_HALVES
from numbanet.tiles.fragments import ROWS

WARPGROUP = 4  # warps, of which the first has a number that is a multiple of 4
WARPGROUP_ROWS = WARPGROUP * ROWS  # that it multiplies at a time
KINDS = {"float16": "f16", "bfloat16": "bf16"}
# After writes to shared memory that wgmma is to read, before the barrier.
fence_for_warpgroups = instruction("fence.proxy.async.shared::cta;", types.void, effect=MEMORY)

# A number that is the same in all lanes, in a way that the assembler knows it.
of_first_lane = instruction(
    "shfl.sync.idx.b32 $0, $1, 0, 31, -1;", types.uint32, types.uint32, effect=ANYTHING
)


def columns_pitch(n_rows: int) -> int:
    """Bytes from 8 columns to the next 8; 16 are unused, lest copies wait for the same banks."""
    return PIECE * (n_rows + 1)


def text_of(
    precision: str, n_deep: int, n_wide: int, n_fragments: int, step: int, across: bool
) -> str:
    """Instructions of `warpgroup_product`: registers of the sums, the words, and a descriptor."""
    n_sums, n_words, kind = 8 * n_wide, 4 * n_deep, KINDS[precision]
    descriptor = n_fragments * (n_sums + n_words)
    shape = f"m64n{ROWS * n_wide}k16.f32.{kind}.{kind}"
    lines = ["{ .reg .b64 here;", "wgmma.fence.sync.aligned;"]

    def registers(first, n):
        return "{" + ",".join(f"${k}" for k in range(first, first + n)) + "}"

    for fragment in range(n_fragments):
        sums = registers(fragment * n_sums, n_sums)
        for k in range(n_deep):
            first = n_fragments * n_sums + fragment * n_words + 4 * k
            lines += [
                f"add.s64 here, ${descriptor}, {k * step};",
                f"wgmma.mma_async.sync.aligned.{shape} {sums}, {registers(first, 4)}, here, "
                f"{int(k > 0)}, 1, 1, {int(across)};",
            ]
    lines += ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;", "}"]
    return "\n".join(lines)


def values_of(context, builder, kind, array, n):
    """Pointers to the first n numbers of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return [builder.gep(data, [ir.IntType(64)(k)]) for k in range(n)]


@cache
def warpgroup_product(
    precision: str, n_deep: int, n_wide: int, transposed: bool, n_fragments: int = 1
):
    """Device function (words, address, sums): sums = words times a matrix in shared memory.

    As `product`, but for all warps of a warpgroup together; the address is that of the matrix.
    """
    n_sums, n_words = 8 * n_wide * n_fragments, 4 * n_deep * n_fragments
    columns = columns_pitch(ROWS * (n_wide if transposed else n_deep)) // PIECE
    step = 2 * columns if transposed else ROWS  # pieces to the next 16 numbers of the depth
    text = text_of(precision, n_deep, n_wide, n_fragments, step, not transposed)
    # Descriptors count in pieces: from 8 numbers of the depth to the next, and across it.
    strides = (columns, PIECE_HALVES) if transposed else (PIECE_HALVES, columns)
    strides = np.uint64(strides[0] << 16 | strides[1] << 32)
    result = types.UniTuple(types.float32, n_sums)
    kinds = [types.uint32] * n_words + [types.uint64]

    @intrinsic
    def multiply(typingctx, words, descriptor, sums):
        def codegen(context, builder, signature, args):
            of_words, _, of_sums = signature.args
            operands = [
                builder.load(place)
                for place in values_of(context, builder, of_words, args[0], n_words)
            ]
            found = emit(context, builder, text, result, kinds, [*operands, args[1]], effect=MEMORY)
            places = values_of(context, builder, of_sums, args[2], n_sums)
            for place, value in zip(places, cgutils.unpack_tuple(builder, found), strict=True):
                builder.store(value, place)
            return context.get_dummy_value()

        return types.void(words, types.uint64, sums), codegen

    @device
    def warpgroup_product(words, address, sums):
        descriptor = np.uint64((address >> 4) & 0x3FFF) | strides
        multiply(words, descriptor, sums)

    return warpgroup_product


@cache
def warpgroup_outer_product(precision: str, n_columns: int, n_steps: int, pitch: int, first: int):
    """Device function (a, b, sums): add a^T b over 16 n_steps rows to sums[first:].

    a are the addresses of 64 columns in pieces, b of n_columns; pieces are `pitch` bytes apart. A
    lane has the sums of rows and columns as `product` has them.
    """
    n_sums, kind, last = n_columns // 2, KINDS[precision], first + n_columns // 2
    registers = "{" + ",".join(f"${k}" for k in range(n_sums)) + "}"
    lines = ["{ .reg .b64 a; .reg .b64 b;", "wgmma.fence.sync.aligned;"]
    for k in range(n_steps):
        lines += [
            f"add.s64 a, ${2 * n_sums}, {k * ROWS};",
            f"add.s64 b, ${2 * n_sums + 1}, {k * ROWS};",
            f"wgmma.mma_async.sync.aligned.m64n{n_columns}k16.f32.{kind}.{kind} {registers}, "
            "a, b, 1, 1, 1, 1, 1;",
        ]
    lines += ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;", "}"]
    constraints = ["=f"] * n_sums + [str(k) for k in range(n_sums)] + ["l", "l", "~{memory}"]
    strides = (PIECE_HALVES, pitch // PIECE)
    strides = np.uint64(strides[0] << 16 | strides[1] << 32)

    @intrinsic
    def add(typingctx, a, b, sums):
        def codegen(context, builder, signature, args):
            places = values_of(context, builder, signature.args[2], args[2], last)[first:]
            number = ir.FloatType()
            kinds = [number] * n_sums + [ir.IntType(64)] * 2
            returned = ir.FunctionType(ir.LiteralStructType([number] * n_sums), kinds)
            asm = ir.InlineAsm(returned, "\n".join(lines), ",".join(constraints), True)
            found = builder.call(asm, [*map(builder.load, places), args[0], args[1]])
            for k, place in enumerate(places):
                builder.store(builder.extract_value(found, k), place)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64, sums), codegen

    @device
    def warpgroup_outer_product(a, b, sums):
        add(np.uint64((a >> 4) & 0x3FFF) | strides, np.uint64((b >> 4) & 0x3FFF) | strides, sums)

    return warpgroup_outer_product
