"""Arrays on the stack of a device function, which live in registers where that is possible."""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic
from numba.np import arrayobj

from numbanet.device.declare import device


def literal(n, what):
    """Constant value of a type; where there is none, Numba retries with literal types."""
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue(f"{what} takes a number that is known at compile time")
    return n.literal_value


def array_over(context, builder, array_type, data, shape):
    """Value of an array in C order that begins at a pointer."""
    item_size = context.get_constant(types.intp, array_type.dtype.bitwidth // 8)
    strides = [item_size]
    for length in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], length))
    array = context.make_array(array_type)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.bitcast(data, context.get_data_type(array_type.dtype).as_pointer()),
        shape=shape,
        strides=strides,
        itemsize=item_size,
        meminfo=None,
        parent=None,
    )
    return array._getvalue()


@intrinsic
def local_array(typingctx, n):
    """Float32 array of `n` elements on the stack; `n` is known at compile time.

    With constant indices it lives in registers. It must not outlive the function that made it.
    """
    length, array_type = literal(n, "local_array"), types.Array(types.float32, 1, "C")

    def codegen(context, builder, signature, args):
        storage = ir.ArrayType(context.get_value_type(types.float32), length)
        data = cgutils.alloca_once(builder, storage, name="local")
        shape = [context.get_constant(types.intp, length)]
        return array_over(context, builder, array_type, data, shape)

    return array_type(n), codegen


@intrinsic
def flat_view(typingctx, array):
    """Memory of a 2-D array from its first element on, as one row: its own if there are no gaps."""
    view_type = types.Array(array.dtype, 1, "C")

    def codegen(context, builder, signature, args):
        source = context.make_array(signature.args[0])(context, builder, args[0])
        return array_over(context, builder, view_type, source.data, [source.nitems])

    return view_type(array), codegen


@intrinsic
def uint32_view(typingctx, array):
    """Memory of a 1-D float32 array as uint32: local integers, or the bits of the floats."""
    view_type = types.Array(types.uint32, 1, "C")

    def codegen(context, builder, signature, args):
        source = context.make_array(signature.args[0])(context, builder, args[0])
        view = context.make_array(view_type)(context, builder)
        arrayobj.populate_array(
            view,
            data=builder.bitcast(source.data, ir.IntType(32).as_pointer()),
            shape=source.shape,
            strides=source.strides,
            itemsize=source.itemsize,
            meminfo=None,
            parent=None,
        )
        return view._getvalue()

    return view_type(array), codegen


@device
def float_bits(x):  # as uint32
    storage = local_array(1)
    storage[0] = x
    return uint32_view(storage)[0]


@device
def four_from(array, i):
    return array[i], array[i + 1], array[i + 2], array[i + 3]


@device
def set_four(array, i, values):
    array[i], array[i + 1], array[i + 2], array[i + 3] = values


@intrinsic
def multiply_add(typingctx, target, i, weight, source, j, n):
    """target[i : i + n] += weight * source[j : j + n] for 1-D float32 arrays, as one vector.

    `n` is known at compile time. LLVM does not join the elements of such short loops by itself.
    """
    length = literal(n, "multiply_add")
    signature = types.void(target, types.intp, types.float32, source, types.intp, n)

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(ir.FloatType(), length)
        fused = ("contract",)  # lets LLVM join multiplication and addition

        def address(array, offset):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.bitcast(builder.gep(data, [args[offset]]), vector.as_pointer())

        to, start = address(0, 1), builder.load(address(3, 4))
        total = builder.load(to)
        total.align = start.align = 4
        weight = ir.Constant(vector, ir.Undefined)
        for k in range(length):
            weight = builder.insert_element(weight, args[2], ir.IntType(32)(k))
        product = builder.fmul(weight, start, flags=fused)
        builder.store(builder.fadd(total, product, flags=fused), to).align = 4
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_vector(typingctx, target, i, source, j, n):
    """target[i : i + n] = source[j : j + n] for 1-D float32 arrays, as one vector.

    `n` is known at compile time. A loop over many short copies would take number by number.
    """
    length = literal(n, "copy_vector")
    signature = types.void(target, types.intp, source, types.intp, n)

    def codegen(context, builder, signature, args):
        vector = ir.VectorType(ir.FloatType(), length)

        def address(array):
            data = context.make_array(signature.args[array])(context, builder, args[array]).data
            return builder.bitcast(builder.gep(data, [args[array + 1]]), vector.as_pointer())

        values = builder.load(address(2))
        values.align = 4
        builder.store(values, address(0)).align = 4
        return context.get_dummy_value()

    return signature, codegen
