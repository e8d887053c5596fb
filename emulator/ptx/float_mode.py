"""The CPU's own flush-to-zero and rounding modes, under which NumPy runs the instructions.

Set through libm on x86-64 and aarch64 with glibc. Elsewhere `AVAILABLE` is False: subnormals are
kept, and directed rounding is refused.
"""

import ctypes
import ctypes.util
import platform

import numpy as np

MACHINES = {  # word and bits of fenv_t that flush; rounding modes nearest, zero, down, up
    "x86_64": (7, 0x8040, (0x000, 0xC00, 0x400, 0x800)),
    "aarch64": (0, 1 << 24, (0x000000, 0xC00000, 0x800000, 0x400000)),
}
ROUNDINGS = ("rn", "rz", "rm", "rp")
_libm = None
_keep = (ctypes.c_uint32 * 64)()
_flush = (ctypes.c_uint32 * 64)()


def set_flush(on):
    """Flush subnormals to zero or not, and round to nearest."""
    if _libm is not None:
        _libm.fesetenv(_flush if on else _keep)


def set_rounding(rounding):
    _libm.fesetround(MACHINES[platform.machine()][2][ROUNDINGS.index(rounding)])


def _works():
    tiny = np.full(67, 1e-40, np.float32)
    third = np.full(67, 1, np.float32) / np.float32(3)
    set_flush(True)
    flushed = tiny + tiny
    set_flush(False)
    kept = tiny + tiny
    set_rounding("rm")
    low = np.full(67, 1, np.float32) / np.float32(3)
    set_rounding("rn")
    return not flushed.any() and kept.all() and (low < third).all()


if platform.machine() in MACHINES and platform.libc_ver()[0] == "glibc":
    _libm = ctypes.CDLL(ctypes.util.find_library("m"))
    _libm.fegetenv(_keep)
    word, bits, _ = MACHINES[platform.machine()]
    _keep[word] &= ~bits
    ctypes.memmove(_flush, _keep, ctypes.sizeof(_keep))
    _flush[word] |= bits
    if not _works():
        _libm = None
AVAILABLE = _libm is not None
