"""Photographs in memory: four bytes a pixel, converted to floats a strip of rows at a time.

Networks learn linear light. As in tiny-cuda-nn, a displayed value v in [0, 1] becomes v^2.2 and
comes back by the power 1 / 2.2: a pure power, not the piecewise sRGB curve, in both directions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

GAMMA = np.float32(2.2)
PIXELS_AT_ONCE = 1 << 18  # of a strip, where numbers take more than the photograph's four bytes


def to_linear(encoded: np.ndarray) -> np.ndarray:
    """Linear light of displayed values in [0, 1]."""
    return encoded**GAMMA


def to_encoded(linear: np.ndarray) -> np.ndarray:
    """Displayed values in [0, 1] of linear light, which may lie outside."""
    return np.clip(np.nan_to_num(linear), 0, 1) ** (1 / GAMMA)


# Of a byte's 256 values.
DISPLAYED = np.arange(256, dtype=np.float32) / np.float32(255)
LINEAR = to_linear(DISPLAYED)


def strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    """Strips that cover an image of this size: first and last row (excluded) of each."""
    n_rows = max(1, PIXELS_AT_ONCE // width)
    for first in range(0, height, n_rows):
        yield first, min(first + n_rows, height)


@dataclass(frozen=True)
class Photograph:
    """Image in memory.

    Args:
        path: the file it was read from.
        pixels: [height, width]; uint32 with red, green and blue in the lowest three bytes, or
            float32 with displayed values of grey in [0, 1].
        white: the file's value for white.
        note: assumptions about the file, for the user.
    """

    path: Path
    pixels: np.ndarray
    white: float = 255
    note: str = ""

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def in_colour(self) -> bool:
        return self.pixels.dtype == np.uint32

    def strips(self) -> Iterator[tuple[int, int]]:
        return strips(self.height, self.width)

    def _bytes(self, rows: slice) -> np.ndarray:
        pixels = self.pixels[rows]
        return pixels.astype("<u4", copy=False).view(np.uint8).reshape(*pixels.shape, 4)[..., :3]

    def _grey(self, rows: slice) -> np.ndarray:
        return np.broadcast_to(self.pixels[rows, :, None], (*self.pixels[rows].shape, 3))

    def encoded(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Displayed values of some rows, float32 [rows, width, 3] in [0, 1]."""
        rows = slice(first, last)
        return DISPLAYED[self._bytes(rows)] if self.in_colour else self._grey(rows)

    def linear(self, first: int = 0, last: int | None = None) -> np.ndarray:
        """Linear light of some rows, float32 [rows, width, 3] in [0, 1]."""
        rows = slice(first, last)
        return LINEAR[self._bytes(rows)] if self.in_colour else to_linear(self._grey(rows))

    @cached_property
    def digest(self) -> str:
        """Digest of the pixels, whatever the file format."""
        total = sha256(np.array([self.height, self.width]).astype("<i8").tobytes())
        for first, last in self.strips():
            total.update(np.ascontiguousarray(self.encoded(first, last), "<f4").data)
        return total.hexdigest()

    def centres(self, first_row: int, last_row: int) -> np.ndarray:
        """Positions (x, y) of the pixel centres of some rows, [n, 2]."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5) / np.float32(self.width)
        y = (np.arange(first_row, last_row, dtype=np.float32) + 0.5) / np.float32(self.height)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
