"""Dtypes of a module's tensors, and the defaults of new modules."""

import os
from enum import IntEnum

import torch

from numbanet.shown import shown


class Precision(IntEnum):
    """Precision of parameters and outputs; Bf16 is not one of tinycudann's."""

    Fp32 = 0
    Fp16 = 1
    Bf16 = 2


DTYPES = {
    Precision.Fp32: torch.float32,
    Precision.Fp16: torch.float16,
    Precision.Bf16: torch.bfloat16,
}
VARIABLE = "NUMBANET_TORCH_DTYPE"


def dtype_of(precision: Precision) -> torch.dtype:
    """Dtype of tensors of this precision."""
    return DTYPES[Precision(precision)]


def precision_of(dtype: torch.dtype) -> Precision:
    """Precision of a dtype."""
    return next(precision for precision, each in DTYPES.items() if each == dtype)


def default_device() -> torch.device:
    """Device of new modules: PyTorch's current GPU, or the CPU where there is none.

    A default device that was set in PyTorch goes before.
    """
    chosen = torch.get_default_device()
    if chosen.type != "cpu" or not torch.cuda.is_available():
        return chosen
    return torch.device("cuda", torch.cuda.current_device())


_chosen = {}  # by install_as_tinycudann


def set_default_dtype(dtype: torch.dtype | None) -> None:
    """Set the dtype of modules that are made without one; None changes nothing.

    Raises:
        ValueError: the type cannot be used.
    """
    if dtype is not None:
        _chosen["dtype"] = allowed_dtype(dtype)


def default_dtype(device: torch.device) -> torch.dtype:
    """Type of modules that are made on a device without `dtype`.

    It is the one given to install_as_tinycudann, else NUMBANET_TORCH_DTYPE, else float16 on a GPU
    and float32 on the CPU.

    Raises:
        ValueError: the environment variable names no type that can be used.
    """
    if "dtype" in _chosen:
        return _chosen["dtype"]
    name = os.environ.get(VARIABLE)
    if not name:
        return torch.float16 if device.type == "cuda" else torch.float32
    names = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
    if name not in names:
        raise ValueError(f"{VARIABLE}={shown(name)} is not allowed; use one of {', '.join(names)}")
    return names[name]


def allowed_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype, if modules support it; raises ValueError.

    Raises:
        ValueError: they cannot.
    """
    if dtype not in DTYPES.values():
        allowed = ", ".join(map(str, DTYPES.values()))
        raise ValueError(f"dtype: {shown(dtype)} is not allowed; use one of {allowed}")
    return dtype


def preferred_precision() -> Precision:
    """Precision of modules that are made without `dtype`."""
    return precision_of(default_dtype(default_device()))


def default_loss_scale(precision: Precision) -> float:
    """Factor by which tinycudann multiplies gradients of this precision."""
    return 1.0 if precision == Precision.Fp32 else 128.0
