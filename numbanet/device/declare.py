"""Declarations of device functions, and constants that keep arithmetic in float32."""

import math

import numpy as np

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


def exact(function):
    """Declare a device function that is rounded as written, but for fused multiply-adds."""
    return InlineDispatcher(function, fastmath={"contract"}, error_model="numpy", forceinline=True)


@device
def nothing(*arguments):
    return


ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
TWO = np.float32(2.0)
PI = np.float32(math.pi)
