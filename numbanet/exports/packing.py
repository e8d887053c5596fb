"""Parameters in the precision of an export: float32, float16, or int8 with scales for blocks."""

from dataclasses import dataclass

import numpy as np

MOST_HALF = 65504.0  # the largest float16
PRECISIONS = ("float32", "float16", "int8")
BLOCK = 64  # int8 numbers with one scale
LARGEST = 127  # of an int8 number, on both sides


@dataclass(frozen=True)
class Packed:
    """Numbers in storage form; float16 as bits."""

    precision: str
    values: np.ndarray
    scales: np.ndarray | None = None
    block: int = BLOCK

    def tobytes(self) -> bytes:
        """Bytes of the values, then the scales, little-endian; scales are aligned to 4 bytes."""
        data = self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()
        if self.scales is None:
            return data
        return data + bytes(-len(data) % 4) + self.scales.astype("<f4").tobytes()

    def unpacked(self) -> np.ndarray:
        """Numbers that an exported program computes with, float32 [n]."""
        if self.precision == "float16":
            return self.values.view(np.float16).astype(np.float32)
        if self.precision == "int8":
            scales = np.repeat(self.scales, self.block)[: self.values.size]
            return self.values.astype(np.float32) * scales
        return self.values


def packed(params: np.ndarray, precision: str) -> Packed:
    """Round parameters, float32 [n], to a precision.

    Raises:
        ValueError: there is no such precision, or it cannot hold the parameters.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: {precision!r:.80}; use one of {', '.join(PRECISIONS)}")
    params = np.ascontiguousarray(params, np.float32)
    if not np.isfinite(params).all():
        raise ValueError("the parameters are not all finite; train the model before it is exported")
    if precision == "float32":
        return Packed(precision, params)
    if precision == "float16":
        largest = float(np.abs(params).max(initial=0))
        if largest > MOST_HALF:
            raise ValueError(
                f"float16 ends at 65504, and a parameter is {largest:.6g}; use float32"
            )
        return Packed(precision, params.astype(np.float16).view(np.uint16))
    n_blocks = -(-params.size // BLOCK)
    padded = np.zeros(n_blocks * BLOCK, np.float32)
    padded[: params.size] = params
    blocks = padded.reshape(n_blocks, BLOCK)
    scales = (np.abs(blocks).max(1, initial=0) / LARGEST).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        numbers = np.where(scales[:, None] > 0, np.rint(blocks / scales[:, None]), 0)
    values = np.clip(numbers, -LARGEST, LARGEST).astype(np.int8).reshape(-1)[: params.size]
    return Packed(precision, values, scales)
