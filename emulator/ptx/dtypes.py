"""PTX types as NumPy dtypes. Halves and tf32 travel as bits, in unsigned integers."""

import numpy as np

U8, U16, U32, U64 = (np.dtype(f"u{size}") for size in (1, 2, 4, 8))
S8, S16, S32, S64 = (np.dtype(f"i{size}") for size in (1, 2, 4, 8))
F16, F32, F64 = (np.dtype(f"f{size}") for size in (2, 4, 8))
PREDICATE = np.dtype(bool)
BYTES16 = np.dtype("c16")  # moves 16 bytes at once

UNSIGNED = {1: U8, 2: U16, 4: U32, 8: U64}
SIGNED = {1: S8, 2: S16, 4: S32, 8: S64}
WORDS = {**UNSIGNED, 16: BYTES16}

HALVES = ("f16", "bf16", "f16x2", "bf16x2")
FLOATS = {"f32": F32, "f64": F64}
DTYPES = {
    **{f"{kind}{8 * size}": dtype for kind in "ub" for size, dtype in UNSIGNED.items()},
    **{f"s{8 * size}": dtype for size, dtype in SIGNED.items()},
    "f16": U16,
    "bf16": U16,
    "f16x2": U32,
    "bf16x2": U32,
    "tf32": U32,
    **FLOATS,
    "pred": PREDICATE,
}
# A register holds a float, a predicate, or bits.
REGISTER_DTYPES = {
    name: UNSIGNED[dtype.itemsize] if dtype.kind in "iu" else dtype
    for name, dtype in DTYPES.items()
}


def scalar(value, dtype):
    """Array of one element that broadcasts; integers wrap to the width of `dtype`."""
    if dtype.kind in "iu":
        value = int(value) & ((1 << 8 * dtype.itemsize) - 1)
        return np.array([value], UNSIGNED[dtype.itemsize]).view(dtype)
    return np.array([value], dtype)


def join(parts, dtype):
    """Equal parts of words, the lowest first, as words."""
    columns = np.empty((max(part.shape[0] for part in parts), len(parts)), parts[0].dtype)
    for k, part in enumerate(parts):
        columns[:, k] = part
    return columns.reshape(-1).view(dtype)
