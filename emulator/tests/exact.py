"""Rounding of exact numbers to floating-point formats, for tests."""

import math
from fractions import Fraction

import numpy as np

FORMATS = {  # bits of the significand, least exponent of a normal number, greatest exponent
    "f16": (11, -14, 15),
    "bf16": (8, -126, 127),
    "f32": (24, -126, 127),
    "f64": (53, -1022, 1023),
}


def round_exactly(x, kind, mode="rn", flush=False):
    """A Fraction as the nearest (or next in a direction) float of a format."""
    precision, least, greatest = FORMATS[kind]
    if x == 0:
        return 0.0
    size = abs(x)
    exponent = max(floor_log2(size), least)
    unit = Fraction(2) ** (exponent - precision + 1)
    n, rest = divmod(size, unit)
    up = {"rn": rest * 2 > unit or (rest * 2 == unit and n % 2 == 1), "rz": False}
    up |= {"rm": x < 0 and rest > 0, "rp": x > 0 and rest > 0}
    rounded = (n + up[mode]) * unit
    if rounded >= Fraction(2) ** (greatest + 1):
        to_infinity = mode == "rn" or (mode == "rp" and x > 0) or (mode == "rm" and x < 0)
        largest = (2 - Fraction(2) ** (1 - precision)) * Fraction(2) ** greatest
        rounded = math.inf if to_infinity else largest
    elif flush and rounded < Fraction(2) ** least:
        rounded = 0
    return float(rounded) if x > 0 else -float(rounded)


def floor_log2(x):
    k = x.numerator.bit_length() - x.denominator.bit_length()
    return k if Fraction(2) ** k <= x else k - 1


def to_floats(bits, kind):
    """Bits or floats as float64."""
    if kind == "f16":
        return bits.view(np.float16).astype(np.float64)
    if kind == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.astype(np.float64)


def to_bits(floats, kind):
    """Floats that the format can hold, as it stores them."""
    floats = np.asarray(floats, np.float64)
    if kind == "f16":
        return floats.astype(np.float16).view(np.uint16)
    if kind == "bf16":
        return (floats.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return floats.astype({"f32": np.float32, "f64": np.float64}[kind])


def samples(kind, n=400, seed=0, spread=None):
    """Values of a format: all sizes (or about `spread` binary orders), subnormals, edges."""
    rng = np.random.default_rng(seed)
    precision, least, greatest = FORMATS[kind]
    significands = rng.integers(1 << precision - 1, 1 << precision, n).astype(np.float64)
    significands[::3] = np.floor(significands[::3] / 16) * 16  # ties are likely
    low, high = (-spread, spread) if spread else (least - precision + 2, greatest)
    exponents = rng.integers(low, high + 1, n)
    floats = np.ldexp(significands, exponents - precision + 1)
    floats *= rng.choice([-1.0, 1.0], n)
    edges = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        2.0**least,
        0.5,
        1.5,
        (2 - 2.0 ** (1 - precision)) * 2.0**greatest,
    ]
    rng.shuffle(floats)
    floats[: len(edges)] = rng.permutation(edges)
    return to_bits([round_exactly(Fraction(x), kind) for x in floats.tolist()], kind)
