"""DLPack: exchange of device memory with other libraries, without a copy.

The structures of DLPack 0.8, which every library reads and writes.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NAME = b"dltensor"  # of a capsule that has not been consumed
CUDA, CUDA_MANAGED = 2, 13  # types of devices

# Numbers of the type codes, and the letters that NumPy has for them.
KINDS = {0: "i", 1: "u", 2: "f", 4: "bfloat", 5: "c", 6: "b"}
BFLOAT16 = "bfloat2"
CODES = {"i": 0, "u": 1, "f": 2}


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class ManagedTensor(ctypes.Structure):
    _fields_ = (
        ("tensor", Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_python = ctypes.pythonapi
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _python)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", _python)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)

_handed_out = {}  # address of a structure -> objects to keep alive while it is in use


@_Deleter
def _release(address):
    _, _, when_done = _handed_out.pop(address)
    when_done()


@_Deleter
def _forget_capsule(capsule):  # the destructor of a capsule, which may be unconsumed
    if _is_valid(capsule, NAME):
        _release(_pointer(capsule, NAME))


def export(
    address: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    device: tuple[int, int],
    when_done: Callable[[], Any],
):
    """Capsule with an array in C order; `when_done` is called when its last user is done."""
    managed = ManagedTensor()
    lengths = (ctypes.c_int64 * len(shape))(*shape)
    tensor = managed.tensor
    tensor.data, (tensor.device_type, tensor.device_id) = address, device
    tensor.ndim, tensor.shape = len(shape), lengths
    tensor.code, tensor.bits, tensor.lanes = CODES[dtype.kind], 8 * dtype.itemsize, 1
    managed.deleter = ctypes.cast(_release, ctypes.c_void_p)
    place = ctypes.addressof(managed)
    _handed_out[place] = managed, lengths, when_done
    return _new(place, NAME, ctypes.cast(_forget_capsule, ctypes.c_void_p))


@dataclass(frozen=True)
class Imported:
    """Array in another library's memory, valid as long as `owner` lives."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # bytes; None for C order
    dtype: str  # as NumPy writes it, such as "f4", or BFLOAT16
    owner: object


def read(capsule) -> Imported:
    """Array in a capsule, which stays unconsumed: its destructor will release the memory.

    Raises:
        ValueError: the elements are of a type that is not supported.
    """
    tensor = ManagedTensor.from_address(_pointer(id(capsule), NAME)).tensor
    if tensor.lanes != 1 or tensor.code not in KINDS or tensor.bits % 8:
        raise ValueError(f"DLPack type {tensor.code} of {tensor.bits} bits is not supported")
    item_size, ndim = tensor.bits // 8, tensor.ndim
    strides = tuple(item_size * step for step in tensor.strides[:ndim]) if tensor.strides else None
    return Imported(
        address=(tensor.data or 0) + tensor.byte_offset,
        shape=tuple(tensor.shape[:ndim]),
        strides=strides,
        dtype=f"{KINDS[tensor.code]}{item_size}",
        owner=capsule,
    )
