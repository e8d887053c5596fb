"""Quantized tables: parameters as codes of few bits, with a scale for each level.

    8 bits  s = max |w| / 127, w' = s round(w / s)
    1 bit   s = mean |w|, w' = s where w >= 0, else -s  (Rastegari et al. 2016, XNOR-Net)

Kernels read w', and its gradient moves w: the straight-through estimator (Bengio, Leonard and
Courville 2013). Scales have 16 significant bits, so that products with codes are exact, and what
was made of w' is w' again.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.device import ZERO, device, exact, float_bits, float_from_bits, select
from numbanet.kernel_cache import compile_cached

COMPRESSIONS = {"None": 0, "Int8": 8, "OneBit": 1}  # names of a grid's option, and bits
LARGEST_CODE = 127
MOST = np.float32(LARGEST_CODE)
ROUND = np.float32(1.5 * 2**23)  # adding it rounds to the nearest integer
LOW_BITS, HALF_OF_THEM = 0xFF, 0x80  # of a float32, behind its first 16 significant bits

CHUNK = 256  # numbers that are added up first: equal ones have an exact sum


class Quantized(NamedTuple):
    """Range of consecutive parameters with one scale."""

    first: int
    end: int
    bits: int

    @property
    def n_bytes(self) -> int:
        """Bytes of the codes."""
        return -(-(self.end - self.first) * self.bits // 8)

    def after(self, n: int) -> "Quantized":
        """Same range behind n other parameters."""
        return self._replace(first=self.first + n, end=self.end + n)


class Format(NamedTuple):
    """Device functions for a number of bits."""

    collect: Callable  # (total, w): the total of magnitudes with that of w
    scale: Callable  # (total, n): the scale of n parameters
    value: Callable  # (w, scale): quantized w


@device
def larger(total, w):
    return max(total, abs(w))


@device
def added(total, w):
    return total + abs(w)


@device
def scale_of_codes(total, n):
    bits = np.uint32(float_bits(total / MOST) + LOW_BITS)
    return float_from_bits(np.uint32(bits & np.uint32(~np.uint32(LOW_BITS))))


@device
def scale_of_signs(total, n):
    bits = np.uint32(float_bits(total / np.float32(n)) + HALF_OF_THEM)
    return float_from_bits(np.uint32(bits & np.uint32(~np.uint32(LOW_BITS))))


@exact
def nearest(x):
    return (x + ROUND) - ROUND


@device
def value_of_code(w, scale):
    return scale * nearest(w / select(scale > ZERO, scale, MOST))


@device
def value_of_sign(w, scale):
    return select(w < ZERO, -scale, scale)


FORMATS = {
    8: Format(larger, scale_of_codes, value_of_code),
    1: Format(added, scale_of_signs, value_of_sign),
}


def quantize(values: np.ndarray, quantized: tuple[Quantized, ...]) -> np.ndarray:
    """Copy of the values, float32 [n_params], in which quantized ones are rounded."""
    copy = values.copy()
    for level in quantized:
        quantize_level(level.bits)(copy[level.first : level.end])
    return copy


@cache
def quantize_level(bits: int):
    collect, scale_of, value = FORMATS[bits]

    def quantize_values(values):
        parts = values
        while parts.shape[0] > 1:
            sums = np.empty((parts.shape[0] + CHUNK - 1) // CHUNK, np.float32)
            for k in range(sums.shape[0]):
                total = np.float32(0)
                for i in range(k * CHUNK, min(parts.shape[0], (k + 1) * CHUNK)):
                    total = collect(total, parts[np.uintp(i)])
                sums[k] = total
            parts = sums
        scale = scale_of(collect(np.float32(0), parts[0]), values.shape[0])
        for i in range(np.uintp(values.shape[0])):
            values[i] = value(values[i], scale)

    return compile_cached(quantize_values, fastmath=True)


def packed(values: np.ndarray, quantized: tuple[Quantized, ...]) -> dict[str, np.ndarray]:
    """Storage of quantized values, float32 [n_params]: the rest as it is, codes, scales."""
    is_rest, codes, scales = np.ones(values.size, bool), [], []
    for level in quantized:
        own = values[level.first : level.end]
        is_rest[level.first : level.end] = False
        most = np.abs(own).max(initial=0)
        if level.bits == 1:
            codes.append(np.packbits(own >= 0))
            scales.append(most)
        else:
            scale = most / np.float32(LARGEST_CODE) or np.float32(1)
            codes.append(np.rint(own / scale).astype(np.int8).view(np.uint8))
            scales.append(scale)
    if not quantized:
        return {"params": values}
    return {
        "params": values[is_rest],
        "codes": np.concatenate(codes),
        "scales": np.array(scales, np.float32),
    }


def packed_shapes(n_params: int, quantized: tuple[Quantized, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that `packed` returns."""
    if not quantized:
        return {"params": (n_params,)}
    n_rest = n_params - sum(level.end - level.first for level in quantized)
    n_bytes = sum(level.n_bytes for level in quantized)
    return {"params": (n_rest,), "codes": (n_bytes,), "scales": (len(quantized),)}


def unpacked(
    stored: Mapping[str, np.ndarray], n_params: int, quantized: tuple[Quantized, ...]
) -> np.ndarray:
    """Values from their packed form."""
    if not quantized:
        return stored["params"]
    values, is_rest, first = np.empty(n_params, np.float32), np.ones(n_params, bool), 0
    for level, scale in zip(quantized, stored["scales"], strict=True):
        n, codes = level.end - level.first, stored["codes"][first : first + level.n_bytes]
        first += level.n_bytes
        is_rest[level.first : level.end] = False
        signs = np.unpackbits(codes, count=n) if level.bits == 1 else None
        numbers = codes.view(np.int8) if signs is None else 2 * signs.astype(np.int8) - 1
        values[level.first : level.end] = scale * numbers.astype(np.float32)
    values[is_rest] = stored["params"]
    return values
