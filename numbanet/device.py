"""The vocabulary of device code: functions that Numba compiles for the CPU and for CUDA alike.

Everything that is a formula is written with `@device` and float32 constants. Numba compiles such a
function for whichever target calls it, also through closures, so no formula exists twice.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.cpu import CPUContext
from numba.core.errors import RequireLiteralValue, TypingError
from numba.extending import intrinsic
from numba.np import arrayobj

from numbanet.architecture import AMPERE, emit_compute_capability
from numbanet.inline_compiler import InlineDispatcher


def device(function):
    """Declare a device function.

    fastmath must sit on every function: a kernel's flags do not reach what it calls.
    error_model="numpy" drops the zero test in front of each division.
    """
    return InlineDispatcher(function, fastmath=True, error_model="numpy", forceinline=True)


def belongs_to(owner):
    """Name a function after the class and method it serves, such as "L1.row", for error messages.

    Needed where another class makes the function; stands below `device`.
    """

    def rename(function):
        function.__qualname__ = f"{owner}.<locals>.{function.__name__}"
        return function

    return rename


ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
TWO = np.float32(2.0)
PI = np.float32(math.pi)


@intrinsic
def local_array(typingctx, n):
    """A float32 array of `n` elements on the stack; `n` is known at compile time.

    With constant indices it lives in registers. It must not outlive the function that made it.
    """
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue("local_array: the length must be known at compile time")
    length = n.literal_value
    array_type = types.Array(types.float32, 1, "C")

    def codegen(context, builder, signature, args):
        element = context.get_value_type(types.float32)
        storage = cgutils.alloca_once(builder, ir.ArrayType(element, length), name="local")
        array = context.make_array(array_type)(context, builder)
        item_size = context.get_constant(types.intp, 4)
        arrayobj.populate_array(
            array,
            data=builder.bitcast(storage, element.as_pointer()),
            shape=[context.get_constant(types.intp, length)],
            strides=[item_size],
            itemsize=item_size,
            meminfo=None,
            parent=None,
        )
        return array._getvalue()

    return array_type(n), codegen


def calls(typingctx, n, body, arguments, emit):
    """What an intrinsic returns that calls body(k, *arguments) for k = 0 ... n - 1."""
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue("the number of calls must be known at compile time")
    call = typingctx.resolve_function_type(body, (types.intp, *arguments), {})

    def codegen(context, builder, signature, args):
        function = context.get_function(body, call)
        values = cgutils.unpack_tuple(builder, args[2])
        emit(context, builder, n.literal_value, lambda k: function(builder, [k, *values]))
        context.add_linking_libs(getattr(function, "libs", ()))
        return context.get_dummy_value()

    return types.void(n, body, types.StarArgTuple(arguments)), codegen


def emit_calls(context, builder, n, call):
    for k in range(n):
        call(context.get_constant(types.intp, k))


class LoopOptions(ir.MDValue):
    """Options of one loop: LLVM wants a node that names itself first, which llvmlite cannot say."""

    def __init__(self, module, *options):
        nodes = [module.add_metadata([ir.MetaDataString(module, option)]) for option in options]
        super().__init__(module, nodes, str(len(module.metadata)))

    def descr(self, buf):
        nodes = ", ".join(node.get_reference() for node in (self, *self.operands))
        buf.append(f"distinct !{{ {nodes} }}\n")


def emit_loop(context, builder, n, call):
    """A loop that is not unrolled before LLVM comes to vectorise it."""
    if not isinstance(context, CPUContext):
        emit_calls(context, builder, n, call)
        return
    with cgutils.for_range(builder, context.get_constant(types.intp, n)) as loop:
        call(loop.index)
        body = builder.block
    options = LoopOptions(builder.module, "llvm.loop.unroll.disable")
    body.terminator.set_metadata("llvm.loop", options)


@intrinsic
def unrolled(typingctx, n, body, *arguments):
    """body(k, *arguments) for k = 0 ... n - 1, as n calls; `n` is known at compile time.

    Once inlined, whatever depends on k alone is a constant: indices, entries of tuples, branches.
    LLVM unrolls a loop only if it is small, and never one whose bounds depend on another loop's k.
    """
    return calls(typingctx, n, body, arguments, emit_calls)


@intrinsic
def vectorized(typingctx, n, body, *arguments):
    """As unrolled on CUDA; on the CPU, a loop that LLVM can turn into vector instructions."""
    return calls(typingctx, n, body, arguments, emit_loop)


def special_register_for(name):
    """Function (anchor) for CUDA: a special register, read again for each anchor, which changes.

    So neither it nor what follows from it holds a register throughout a loop.
    """

    @intrinsic
    def read(typingctx, anchor):
        def codegen(context, builder, signature, args):
            letter = {types.float32: "f", types.uint32: "r"}[signature.args[0]]
            function = ir.FunctionType(ir.IntType(32), [args[0].type])
            text = f"mov.u32 $0, %{name};"
            return builder.call(ir.InlineAsm(function, text, f"=r,{letter}"), args)

        return types.uint32(anchor), codegen

    return read


lane_number, thread_index_for = special_register_for("laneid"), special_register_for("tid.x")


@device
def nothing(*arguments):
    return


@intrinsic
def floor_to_int(typingctx, x):
    """The largest int32 that is not above a float32 of at most 2^30 in size."""

    def codegen(context, builder, signature, args):
        integer = ir.IntType(32)
        if not isinstance(context, CPUContext):
            function = ir.FunctionType(integer, [ir.FloatType()])
            return builder.call(ir.InlineAsm(function, "cvt.rmi.s32.f32 $0, $1;", "=r,f"), args)
        truncated = builder.fptosi(args[0], integer)  # a floor might be a library call
        is_above = builder.fcmp_ordered("<", args[0], builder.sitofp(truncated, ir.FloatType()))
        return builder.sub(truncated, builder.zext(is_above, integer))

    return types.int32(types.float32), codegen


@intrinsic
def opaque(typingctx, n):
    """The uint32 or uint64 itself, about whose bits the compiler learns nothing, on CUDA.

    For an index that becomes an address: LLVM would add constants to it in 32 bits where it knows
    that they suffice, when a GPU's load adds them to 64 bits for nothing. For an address: LLVM
    would compute it again in each branch.
    """

    def codegen(context, builder, signature, args):
        if isinstance(context, CPUContext):
            return args[0]
        width = signature.args[0].bitwidth
        letter, integer = {32: "r", 64: "l"}[width], ir.IntType(width)
        function, text = ir.FunctionType(integer, [integer]), f"mov.b{width} $0, $1;"
        return builder.call(ir.InlineAsm(function, text, f"={letter},{letter}"), args)

    return n(n), codegen


@intrinsic
def in_register(typingctx, constant, x):
    """The float32 constant itself, on CUDA as 0 x + constant; x is finite.

    An instruction holds one constant. This one leaves the place to another where both are asked
    for, which the assembler would otherwise move to a register first.
    """

    def codegen(context, builder, signature, args):
        if isinstance(context, CPUContext):
            return args[0]
        real = ir.FloatType()
        function = ir.FunctionType(real, [real, real])
        text = "fma.rn.f32 $0, $1, 0f00000000, $2;"
        return builder.call(ir.InlineAsm(function, text, "=f,f,f"), [args[1], args[0]])

    return types.float32(types.float32, types.float32), codegen


@intrinsic
def uint32_view(typingctx, array):
    """The memory of a 1-D float32 array as uint32: local integers, or the bits of the floats."""
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
def float_bits(x):
    storage = local_array(1)
    storage[0] = x
    return uint32_view(storage)[0]


@intrinsic
def multiply_add(typingctx, target, i, weight, source, j, n):
    """target[i : i + n] += weight * source[j : j + n] for 1-D float32 arrays, as one vector.

    `n` is known at compile time. LLVM does not join the elements of such short loops by itself.
    """
    if not isinstance(n, types.IntegerLiteral):
        raise RequireLiteralValue("multiply_add: the length must be known at compile time")
    length = n.literal_value
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


# Arithmetic whose order of rounding matters: nothing is reassociated, only fused multiply-adds.
def exact(function):
    """Declare a device function that is rounded as written, but for fused multiply-adds."""
    return InlineDispatcher(function, fastmath={"contract"}, error_model="numpy", forceinline=True)


@intrinsic
def select(typingctx, condition, if_true, if_false):
    """`if_true if condition else if_false` without a branch: LLVM would sink work into one."""
    if if_true != if_false:
        raise TypingError(f"select: the two values have types {if_true} and {if_false}")

    def codegen(context, builder, signature, args):
        return builder.select(*args)

    return if_true(types.boolean, if_true, if_true), codegen


def bound(comparison, ptx):
    """Function (x, limit) for one side: the limit where x is beyond it, and NaN where x is."""

    @intrinsic
    def bound(typingctx, x, limit):
        def codegen(context, builder, signature, args):
            is_beyond = builder.fcmp_ordered(comparison, *args)
            bounded = builder.select(is_beyond, args[1], args[0])
            if isinstance(context, CPUContext):
                return bounded
            real = ir.FloatType()
            text = f"{ptx}.NaN.f32 $0, $1, $2;"  # two instructions become one
            one = builder.call(
                ir.InlineAsm(ir.FunctionType(real, [real] * 2), text, "=f,f,f"), args
            )
            has_it = builder.icmp_signed(
                ">=", emit_compute_capability(builder), ir.IntType(32)(int(AMPERE))
            )
            return builder.select(has_it, one, bounded)

        return types.float32(types.float32, types.float32), codegen

    return bound


# Unlike min and max, which may turn a NaN into the limit.
at_least, at_most = bound("<", "max"), bound(">", "min")


@intrinsic
def float_from_bits(typingctx, bits):
    """The float32 with these 32 bits; the inverse of float_bits."""

    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), codegen


# Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
ROUND = np.float32(1.5 * 2**23)
EXPONENT_BIAS, EXPONENT_SHIFT, SIGN_SHIFT = np.uint32(127), np.uint32(23), np.uint32(31)
EXP_MIN, EXP_MAX = np.float32(-87.3), np.float32(88.3)  # the scale stays a normal number
INVERSE_LN2 = np.float32(1.0 / math.log(2.0))
LN2_HIGH = np.float32(0.693359375)  # 10 bits, so that a multiple of it is exact
LN2_LOW = np.float32(math.log(2.0) - 0.693359375)
LN2 = np.float32(math.log(2.0))
SQRT_HALF_BITS, MANTISSA_SIZE = np.int32(0x3F3504F3), np.int32(23)
INVERSE_PI = np.float32(1.0 / math.pi)
PI_HIGH = np.float32(3.140625)  # 8 bits
PI_MIDDLE = np.float32(0.0009675025939941406)  # 11 bits
SINE_MAX = np.float32(2**18)
PI_LOW = np.float32(math.pi - 3.140625 - 0.0009675025939941406)
EVEN = np.float32(2**24)  # and larger float32 numbers are even integers
FOURS = np.float32(1.5 * 2**25)  # adding it rounds to the nearest multiple of 4


@exact
def exp_reduce(x):  # x = n ln 2 + r with |r| <= ln(2) / 2; returns 2^n and r
    shifted = x * INVERSE_LN2 + ROUND
    n = shifted - ROUND
    scale = float_from_bits(np.uint32((float_bits(shifted) + EXPONENT_BIAS) << EXPONENT_SHIFT))
    return scale, (x - n * LN2_HIGH) - n * LN2_LOW


@device
def exp_parts(x):
    """e^x as (scale, tail), with e^x = scale (1 + tail) and scale a power of two."""
    scale, r = exp_reduce(at_most(at_least(x, EXP_MIN), EXP_MAX))
    series = np.float32(1.3981999507e-3) + np.float32(1.9875691500e-4) * r
    series = np.float32(8.3334519073e-3) + series * r
    series = np.float32(4.1665795894e-2) + series * r
    series = np.float32(1.6666665459e-1) + series * r
    series = np.float32(5.0000001201e-1) + series * r
    return scale, r + r * r * series


@device
def exp(x):
    """e^x to 1e-7; x is clamped to [-87.3, 88.3], so it neither overflows nor reaches zero.

    Coefficients: Cephes (Moshier 1992), expf.
    """
    scale, tail = exp_parts(x)
    return scale + scale * tail


@exact
def add_exp_parts(scale, tail):
    return scale * tail + (scale - ONE)


@device
def exp_minus_one(x):
    """e^x - 1, with a small relative error also near x = 0."""
    scale, tail = exp_parts(x)
    return add_exp_parts(scale, tail)


@device
def log_one_plus_small(r):  # ln(1 + r) = 2 artanh(r / (2 + r)) for r in [-1/3, 1]
    s = r / (TWO + r)
    q = s * s
    series = np.float32(0.1399971108) + np.float32(0.1401149896) * q  # minimax
    series = np.float32(0.2001084150) + series * q
    series = np.float32(0.3333320669) + series * q
    return TWO * s * (ONE + series * q)


@device
def log(x):
    """ln x to 3e-7 for x > 0, and at least -88; x = 2^n m with m in [sqrt 1/2, sqrt 2)."""
    bits = np.int32(float_bits(x))
    n = np.int32(np.int32(bits - SQRT_HALF_BITS) >> MANTISSA_SIZE)
    m = float_from_bits(np.uint32(bits - np.int32(n << MANTISSA_SIZE)))
    return np.float32(n) * LN2 + log_one_plus_small(m - ONE)


@exact
def rounding_of_sum(total, x):  # of total = 1 + x
    return x - (total - ONE)


@device
def log_one_plus(x):
    """ln(1 + x) for x >= 0, with a small relative error also near x = 0."""
    total = ONE + x
    return log(total) + rounding_of_sum(total, x) / total


@exact
def pi_reduce(x, shift):  # x + shift pi = n pi + r with |r| <= pi / 2; returns n in bits, and r
    shifted = (x * INVERSE_PI + shift) + ROUND
    n = (shifted - ROUND) - shift
    return float_bits(shifted), ((x - n * PI_HIGH) - n * PI_MIDDLE) - n * PI_LOW


@device
def signed_sine(n, r):  # (-1)^n sin r for |r| <= pi / 2
    square = r * r
    series = np.float32(-1.98110311e-4) + np.float32(2.60873171e-6) * square
    series = np.float32(8.33308719e-3) + series * square
    series = np.float32(-1.66666604e-1) + series * square
    sine = r + r * square * series
    return float_from_bits(np.uint32(float_bits(sine) ^ np.uint32(n << SIGN_SHIFT)))


@device
def sin_shifted(x, shift):
    n, r = pi_reduce(at_most(at_least(x, -SINE_MAX), SINE_MAX), shift)
    return signed_sine(n, r)


@device
def sin(x):
    """sin x to 2e-7 for |x| <= 1e5; the coefficients minimise the error on [-pi/2, pi/2].

    Beyond 2^18, where neighbouring floats are 1/32 apart and more, x is clamped.
    """
    return sin_shifted(x, ZERO)


@device
def cos(x):
    """cos x to 2e-7 for |x| <= 1e5."""
    return sin_shifted(x, HALF)


@exact
def half_turn_reduce(x, shift):  # x + shift = n + r with |r| <= 1 / 2; returns n in bits, and r
    shifted = (x + shift) + ROUND
    n = (shifted - ROUND) - shift
    return float_bits(shifted), x - n


@device
def sin_pi(x, shift):
    """sin(pi (x + shift)) to 2e-7 for |x| <= 2^21; shift is n / 2, |n| <= 3.

    Faster than sin(PI * x), and exact for every such x, since no multiple of pi is subtracted.
    """
    n, r = half_turn_reduce(x, shift)
    return signed_sine(n, PI * r)


@exact
def less_even(x):
    """x less some even integer, which changes no sin_pi: without rounding, and in [-2, 2]."""
    x = select(abs(x) < EVEN, x, ZERO)
    return x - ((x + FOURS) - FOURS)


@device
def power_of_two(k):
    """2^k as a float, for integers k from -126 to 127."""
    return float_from_bits(np.uint32((np.uint32(k) + EXPONENT_BIAS) << EXPONENT_SHIFT))
