"""Numbers as digits, whose sums are exact whatever the order of the additions."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from numbanet.device import device
from numbanet.storage.memory_access import round_to_int32


@dataclass(frozen=True)
class Digits:
    """Digits of a number: sums are exact to n times bits below the largest number."""

    n: int
    bits: int

    @property
    def log2_most(self) -> int:
        """Logarithm of the most additions to a sum of digits, each at most half a unit."""
        return 30 - (self.bits - 1)


EXACT, FAST = Digits(4, 10), Digits(3, 11)


@cache
def digit_of(digits: Digits):
    """Device function (value, digit): digit of a value below 2^bits.

    Digit 0 is its integer, the next ones expand the rest.
    """
    radix = np.float32(1 << digits.bits)

    @device
    def digit_of(value, digit):
        whole, k = round_to_int32(value), np.uint32(0)
        while k < digit:
            value = radix * (value - np.float32(whole))  # exact
            whole = round_to_int32(value)
            k = np.uint32(k + np.uint32(1))
        return np.int32(whole)

    return digit_of
