"""Array views over raw addresses, for kernels whose arguments are scalars.

A launch passes an address and a size instead of an array with its seven parameters. The views are
plain Numba arrays in C order; indexed with unsigned 32-bit integers they cost one multiplication
and one addition. Numba has no bfloat16 on all targets, so its bits are viewed as uint16: in device
memory, a 16-bit unsigned integer always means a bfloat16.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.device.local import array_over

ANY_LENGTH = 2**32 - 1
GLOBAL_MEMORY = 1  # NVVM's address space; said here, no load or store is a generic one

ELEMENTS = {
    "float32": types.float32,
    "float16": types.float16,
    "bfloat16": types.uint16,
    "uint32": types.uint32,
    "int64": types.int64,
}


def build_view(context, builder, array_type, address, lengths):
    """Value of a C-ordered array at an address (64-bit) with the given lengths (64-bit)."""
    element = context.get_data_type(array_type.dtype)
    pointer = builder.inttoptr(address, ir.PointerType(element, GLOBAL_MEMORY))
    data = builder.addrspacecast(pointer, element.as_pointer())
    return array_over(context, builder, array_type, data, lengths)


def vector_view(dtype):
    """Function (address, n) for device code: an array [n] of a type of ELEMENTS."""

    @intrinsic
    def vector(typingctx, address, n):
        array_type = types.Array(ELEMENTS[dtype], 1, "C")

        def codegen(context, builder, signature, args):
            return build_view(context, builder, array_type, args[0], args[1:])

        return array_type(types.uint64, types.intp), codegen

    return vector


def matrix_view(dtype):
    """Function (address, n_rows, n_columns) for device code: an array [n_rows, n_columns]."""

    @intrinsic
    def matrix(typingctx, address, n_rows, n_columns):
        array_type = types.Array(ELEMENTS[dtype], 2, "C")

        def codegen(context, builder, signature, args):
            return build_view(context, builder, array_type, args[0], args[1:])

        return array_type(types.uint64, types.intp, types.intp), codegen

    return matrix


class View(NamedTuple):
    """Type of a view whose length is not known: a vector, or a matrix of so many columns."""

    dtype: str  # of ELEMENTS
    n_columns: int | None = None


def views(kinds):
    """Function (values) for device code: a tuple with arrays at those that are addresses.

    Args:
        kinds: for each value a View, or else a type of a number, which stays as it is.
    """

    @intrinsic
    def views(typingctx, values):
        def type_of(kind, given):
            if not isinstance(kind, View):
                return given
            return types.Array(ELEMENTS[kind.dtype], 1 if kind.n_columns is None else 2, "C")

        members = [type_of(kind, given) for kind, given in zip(kinds, values, strict=True)]
        result = types.Tuple(members)

        def codegen(context, builder, signature, args):
            found = cgutils.unpack_tuple(builder, args[0])
            for k, kind in enumerate(kinds):
                if isinstance(kind, View):
                    lengths = (
                        [ANY_LENGTH] if kind.n_columns is None else [ANY_LENGTH, kind.n_columns]
                    )
                    lengths = [context.get_constant(types.intp, each) for each in lengths]
                    found[k] = build_view(context, builder, members[k], found[k], lengths)
            return context.make_tuple(builder, result, found)

        return result(values), codegen

    return views


@intrinsic
def columns_from(typingctx, array, first, n_rows, n_columns):
    """View of a 1-D float32 array as [n_rows, n_columns], with columns numbered from `first` on.

    With unsigned indices, and local memory behind it, elements still live in registers.
    """
    view_type = types.Array(types.float32, 2, "C")

    def codegen(context, builder, signature, args):
        source = context.make_array(signature.args[0])(context, builder, args[0])
        data = builder.gep(source.data, [builder.neg(args[1])])
        return array_over(context, builder, view_type, data, args[2:])

    return view_type(array, types.uint64, types.intp, types.intp), codegen


float_vector, float_matrix = vector_view("float32"), matrix_view("float32")
half_vector, bfloat_vector = vector_view("float16"), vector_view("bfloat16")
uint32_vector, int64_vector = vector_view("uint32"), vector_view("int64")

ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}  # bytes
FLOAT_BYTES = ITEM_SIZES["float32"]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # on the host

STORAGES = {np.dtype(dtype): storage for storage, dtype in DTYPES.items()}

# By the precision of a model's compute copy of its parameters.
VECTORS = {"float32": float_vector, "float16": half_vector, "bfloat16": bfloat_vector}
