"""Unsigned integers in device code: as Python's, modulo 2^32 or 2^64, on both targets."""

import numpy as np
import pytest
from numba import njit

from numbanet.cuda.in_kernels.user_kernel import UserKernel
from numbanet.cuda.memory.arrays import to_device, zeros
from numbanet.device import device

WORD, LONG = np.uint32, np.uint64
VALUES = {WORD: (0, 1, 5, 2**31 + 3, 2**32 - 1), LONG: (0, 7, 2**32 + 1, 2**64 - 1)}
N_RESULTS = 12


@device
def results(a, b):
    total = a
    total += b
    total *= 3
    total >>= 2
    return (
        a + b, a - b, a * b, a // (b | 1), a % (b | 1), a & b, a | b, a ^ b,
        (a - b) >> 1, (b & 7) << (a & 7), (a + b) // 2, total,
    )  # fmt: skip


def expected(a, b, kind):
    """The same in Python's integers, each result modulo what the kind holds."""
    mod = 2 ** (8 * kind().itemsize)
    return [
        number % mod
        for number in (
            *(a + b, a - b, a * b, a // (b | 1), a % (b | 1), a & b, a | b, a ^ b),
            *((a - b) % mod >> 1, (b & 7) << (a & 7), (a + b) % mod // 2, 3 * (a + b) % mod >> 2),
        )
    ]


@njit
def on_cpu(a, b):
    return results(a, b)


@pytest.mark.parametrize("kind", [WORD, LONG])
def test_two_of_a_kind(kind):
    for a in VALUES[kind]:
        for b in VALUES[kind]:
            assert list(on_cpu(kind(a), kind(b))) == expected(a, b, kind)


@pytest.mark.parametrize("kind", [WORD, LONG])
def test_an_int_takes_the_other_type(kind):
    for a in VALUES[kind]:
        for b in (0, 1, 6, 2**31 - 1):
            assert list(on_cpu(kind(a), b)) == expected(a, b, kind)
            assert list(on_cpu(b, kind(a))) == expected(b, a, kind)


@device
def doubled(a, b):
    return 2 * (a + b)


@njit
def doubled_on_cpu(a, b):
    return doubled(a, b)


@njit
def plain(a, b):
    return 2 * (a + b)


@pytest.mark.parametrize("pair", [(3, -5), (2.5, WORD(2)), (np.int32(-7), WORD(3)), (True, 4)])
def test_other_types_are_left_to_numba(pair):
    found, wanted = doubled_on_cpu(*pair), plain(*pair)
    assert (type(found), found) == (type(wanted), wanted)


def test_functions_of_others_are_left_alone():
    assert plain(WORD(2**32 - 1), WORD(1)) == 2**33


def test_cuda(cuda_device):
    def kernel(a, b, found):
        values = results(a, b[0])
        for k in range(N_RESULTS):
            found[0, k] = values[k]
        values = results(b[0], 6)
        for k in range(N_RESULTS):
            found[1, k] = values[k]

    a, b = 2**31 + 3, 2**32 - 1
    found = zeros((2, N_RESULTS), WORD, cuda_device)
    of_b = to_device(np.array([b], WORD), cuda_device)
    UserKernel(cuda_device, kernel, (1,), 0)(1, WORD(a), of_b, found)
    np.testing.assert_array_equal(found, [expected(a, b, WORD), expected(b, 6, WORD)])
