"""Reading and writing parameters that are stored as float32, float16 or bfloat16.

Device code computes in float32 and never names a storage type: these leaves convert. The kind of
array tells what is stored; see views.py. On the CPU, where all is float32, they are what they look
like. The functions for pairs take an even index into an array whose address is a multiple of the
size of a pair, and access both numbers at once.
"""

import numpy as np
from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from numbanet.architecture import HOPPER, compute_capability
from numbanet.device import ZERO, device, float_bits, select
from numbanet.storage.halves import (
    MAGNITUDE,
    bfloat16_pair_to_floats,
    bfloat16_to_float,
    float16_pair_to_floats,
    float_to_bfloat16,
    floats_to_bfloat16_pair,
    floats_to_float16_pair,
)
from numbanet.storage.memory_access import (
    add_shared_int32,
    load_halves,
    load_two_floats,
    reduce_bfloat16x2,
    reduce_float16x2,
    reduce_float32,
    reduce_int64,
    reduce_two_float32,
    round_to_int32,
    round_to_int64,
    store_halves,
    store_two_floats,
    swap_word_if_equal,
)

FRACTION_BITS = 8  # of numbers that are rounded at random to integers
FRACTION = 2**FRACTION_BITS - 1
GOLDEN = np.uint32(
    0x9E3779B1
)  # 2^32 over the golden ratio, odd: its multiples have mixed high bits
# Inlined by LLVM. With overload's inline="always" numba-cuda 0.30 loses the index of a second call
# in the same branch: it reads the variable after its deletion, as 0.
INLINED = {"jit_options": {"forceinline": True, "fastmath": True, "error_model": "numpy"}}


def load(array, i):
    """Load the number at i, as float32."""
    return array[i]


@device
def after(i):  # in 64 bits, so that its address is that of i and a constant
    return np.int64(i) + 1


def load_pair(array, i):
    """Load the numbers at i and i + 1, as float32."""
    return array[i], array[after(i)]


def store(array, i, value):
    """Round a float32 to the type of the array, and write it at i."""
    array[i] = value


def store_pair(array, i, low, high):
    """Write two float32 at i and i + 1, rounded to the type of the array."""
    array[i] = low
    array[after(i)] = high


def reduce_one(array, i, value):
    """array[i] += value, in the array's precision: atomic on CUDA, plain on the CPU.

    Halves are updated as the pair that they are part of, so the length is to be even. On CUDA the
    array may also be one of int64, to which the nearest integer is added, or two uint32 of a
    thread: the bits of the largest absolute value, whatever i is, and how many there were.
    """
    array[i] += value


def reduce_one_of_odd(array, i, value):
    """reduce_one for an array that begins with the second number of a pair."""
    array[i] += value


def reduce_pair(array, i, low, high):
    """array[i] += low and array[i + 1] += high: each atomic on CUDA, plain on the CPU.

    On CUDA `array` may also be a pair (address, noise) of uint32: that of int32 in shared memory,
    and a random number. Low and high are then in units of 2^-FRACTION_BITS, and rounded at random.
    """
    array[i] += low
    array[after(i)] += high


# On the CPU the leaves are plain Python.
overload(load, target="cpu", **INLINED)(lambda array, i: load)
overload(load_pair, target="cpu", **INLINED)(lambda array, i: load_pair)
overload(store, target="cpu", **INLINED)(lambda array, i, value: store)
overload(store_pair, target="cpu", **INLINED)(lambda array, i, low, high: store_pair)
overload(reduce_one, target="cpu", **INLINED)(lambda array, i, value: reduce_one)
overload(reduce_one_of_odd, target="cpu", **INLINED)(lambda array, i, value: reduce_one_of_odd)
overload(reduce_pair, target="cpu", **INLINED)(lambda array, i, low, high: reduce_pair)


# On CUDA they depend on the storage type.
@overload(load, target="cuda", **INLINED)
def _(array, i):
    return by_storage(array, load_float, load_half, load_bfloat)


@overload(load_pair, target="cuda", **INLINED)
def _(array, i):
    return by_storage(array, load_float_pair, load_half_pair, load_bfloat_pair)


@overload(store, target="cuda", **INLINED)
def _(array, i, value):
    return by_storage(array, store_float, store_half, store_bfloat)


@overload(store_pair, target="cuda", **INLINED)
def _(array, i, low, high):
    return by_storage(array, store_float_pair, store_half_pair, store_bfloat_pair)


@overload(reduce_one, target="cuda", **INLINED)
def _(array, i, value):
    return by_storage(array, add_float, add_half, add_half, add_integer, note_one)


@overload(reduce_one_of_odd, target="cuda", **INLINED)
def _(array, i, value):
    return by_storage(array, add_float, add_half_of_odd, add_half_of_odd, add_integer, note_one)


@overload(reduce_pair, target="cuda", **INLINED)
def _(array, i, low, high):
    if isinstance(array, types.BaseTuple):
        return add_shared_pair
    others = add_integer_pair, note_pair
    return by_storage(array, add_float_pair, add_half_pair, add_bfloat_pair, *others)


def by_storage(array, for_float, for_half, for_bfloat, for_integer=None, for_notes=None):
    """The implementation that serves an array type."""
    chosen = {types.float32: for_float, types.float16: for_half, types.uint16: for_bfloat}
    chosen |= {types.int64: for_integer, types.uint32: for_notes}
    if not isinstance(array, types.Array) or chosen.get(array.dtype) is None:
        raise TypingError(f"parameters are stored as float32, float16 or bfloat16, not in {array}")
    return chosen[array.dtype]


def load_float(array, i):
    return array[i]


def load_half(array, i):
    return np.float32(array[i])


def load_bfloat(array, i):
    return bfloat16_to_float(array[i])


def store_float(array, i, value):
    array[i] = value


def store_half(array, i, value):
    array[i] = np.float16(value)


def store_bfloat(array, i, value):
    array[i] = float_to_bfloat16(value)


def load_float_pair(array, i):
    return load_two_floats(array, i)


def load_half_pair(array, i):
    return float16_pair_to_floats(load_halves(array, i))


def load_bfloat_pair(array, i):
    return bfloat16_pair_to_floats(load_halves(array, i))


def store_float_pair(array, i, low, high):
    store_two_floats(array, i, low, high)


def store_half_pair(array, i, low, high):
    store_halves(array, i, floats_to_float16_pair(low, high))


def store_bfloat_pair(array, i, low, high):
    store_halves(array, i, floats_to_bfloat16_pair(low, high))


def add_float(array, i, value):
    reduce_float32(array, i, value)


def add_half(array, i, value):
    is_high = np.int32(i) & np.int32(1) != np.int32(0)
    reduce_pair(array, i - (i & 1), select(is_high, ZERO, value), select(is_high, value, ZERO))


def add_half_of_odd(array, i, value):
    number = np.int64(i)
    is_high = number & np.int64(1) == np.int64(0)
    first = number - np.int64(is_high)  # may be -1, a number that belongs to others
    reduce_pair(array, first, select(is_high, ZERO, value), select(is_high, value, ZERO))


def add_float_pair(array, i, low, high):
    if compute_capability() >= HOPPER:
        reduce_two_float32(array, i, low, high)
    else:
        reduce_float32(array, i, low)
        reduce_float32(array, after(i), high)


def add_shared_pair(array, i, low, high):  # the array is an address with a random number
    address, noise = array
    here = address + np.uint32(i) * 4
    mixed = (noise ^ np.uint32(i)) * GOLDEN
    add_shared_int32(here, rounded(low, mixed >> 24))
    add_shared_int32(here + 4, rounded(high, mixed >> 16))


def add_integer(array, i, value):
    reduce_int64(array, i, round_to_int64(value))


def add_integer_pair(array, i, low, high):
    reduce_int64(array, i, round_to_int64(low))
    reduce_int64(array, i + 1, round_to_int64(high))


def note_one(array, i, value):
    array[0] = max(array[0], np.uint32(float_bits(value) & MAGNITUDE))
    array[1] = np.uint32(array[1] + np.uint32(1))


def note_pair(array, i, low, high):
    reduce_one(array, i, low)
    reduce_one(array, i, high)


@device
def rounded(x, noise):  # down, after adding the low bits of the noise
    number = np.int32(round_to_int32(x) + np.int32(noise & FRACTION))
    return np.int32(number >> np.int32(FRACTION_BITS))


def add_half_pair(array, i, low, high):
    reduce_float16x2(array, i, floats_to_float16_pair(low, high))


def add_bfloat_pair(array, i, low, high):
    if compute_capability() >= HOPPER:
        reduce_bfloat16x2(array, i, floats_to_bfloat16_pair(low, high))
    else:
        before = load_halves(array, i)
        expected = ~before
        while before != expected:
            expected = before
            first, second = bfloat16_pair_to_floats(expected)
            after = floats_to_bfloat16_pair(first + low, second + high)
            before = swap_word_if_equal(array, i, expected, after)
