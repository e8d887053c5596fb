"""Validation of arrays of any library, once, at the boundary, and copies to a device."""

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet.arrays import as_host_array, as_host_matrix, as_host_vector, check_shape
from numbanet.cuda.errors import CudaError
from numbanet.cuda.memory import dlpack
from numbanet.cuda.memory.arrays import DeviceArray, to_device
from numbanet.cuda.memory.dlpack import CUDA, CUDA_MANAGED, Imported

FLOAT = np.dtype(np.float32)


def as_device_matrix(
    value: Any, name: str, n_columns: int, n_rows: int | None, device: Any
) -> DeviceArray:
    """Convert to a float32 array [n_rows, n_columns] on a device, copied only if necessary.

    Accepts arrays of any library on the same GPU, and whatever `as_host_matrix` accepts. Only
    float32 in C order is taken without a copy; other arrays pass through the host, which is slow.

    Raises:
        TypeError: it is no array of real numbers, or it lies on another GPU.
        ValueError: its shape is wrong.
    """

    def check(shape):
        expected = f"[{'batch' if n_rows is None else n_rows}, {n_columns}]"
        if len(shape) != 2 or shape[1] != n_columns:
            raise ValueError(f"{name}: expected shape {expected}, got {list(shape)}")
        if n_rows is not None and shape[0] != n_rows:
            raise ValueError(
                f"{name}: expected shape {expected} as the inputs have, got {list(shape)}"
            )

    return bring(
        value, name, device, check, lambda host: as_host_matrix(host, name, n_columns, n_rows)
    )


def as_device_vector(value: Any, name: str, n: int, device: Any) -> DeviceArray:
    """Convert to a float32 array [n] on a device; see `as_device_matrix`.

    Raises:
        TypeError: it is no array of real numbers, or it lies on another GPU.
        ValueError: its shape is wrong.
    """

    def check(shape):
        if tuple(shape) != (n,):
            raise ValueError(f"{name}: expected shape [{n}], got {list(shape)}")

    return bring(value, name, device, check, lambda host: as_host_vector(host, name, n))


def as_device_array(value: Any, name: str, shape: tuple[int, ...], device: Any) -> DeviceArray:
    """Convert to a float32 array of that shape on a device; see `as_device_matrix`.

    Raises:
        TypeError: it is no array of real numbers, or it lies on another GPU.
        ValueError: its shape is wrong.
    """
    return bring(
        value, name, device,
        lambda found: check_shape(found, name, shape),
        lambda host: as_host_array(host, name, shape),
    )  # fmt: skip


def as_device_output(value: Any, name: str, shape: tuple[int, ...], device: Any) -> DeviceArray:
    """Array of any library on the device, checked, to be written in place.

    Raises:
        TypeError: it is no float32 array, or does not lie on the device.
        ValueError: its shape or layout is wrong.
    """
    if isinstance(value, DeviceArray) and value.device is device:
        if value.dtype is FLOAT and value.shape == shape:
            return value
        found, dtype = value, value.dtype
        in_order = True
    else:
        found = on_gpu(value, name, device)
        if found is None:
            raise TypeError(
                f"{name}: expected a float32 array on {device!r} to write to, got {value!r:.80}"
            )
        dtype, in_order = found.dtype, is_c_order(found)
    if dtype != "f4":
        raise TypeError(f"{name}: expected a float32 array to write to, got {dtype}")
    if tuple(found.shape) != tuple(shape) or not in_order:
        raise ValueError(
            f"{name}: expected a C-order array of shape {list(shape)}, got {list(found.shape)}"
        )
    return DeviceArray(tuple(shape), FLOAT, found.address, found.owner, device)


def bring(
    value: Any, name: str, device: Any, check: Callable, as_host: Callable[[Any], np.ndarray]
) -> DeviceArray:
    """Bring an array to a device; `check` takes its shape, `as_host` makes it float32 on a host."""
    if isinstance(value, DeviceArray) and value.device is device:
        check(value.shape)
        return value if value.dtype == FLOAT else to_device(as_host(value.numpy()), device)
    found = on_gpu(value, name, device)
    if found is None:
        return to_device(as_host(value), device)
    check(found.shape)
    if found.dtype == "f4" and is_c_order(found):
        return DeviceArray(found.shape, FLOAT, found.address, found.owner, device)
    return to_device(as_host(to_host(found, device)), device)


def on_gpu(value: Any, name: str, device: Any) -> Imported | None:
    """Array of another library on the device, ready to be read; None if it is on the host."""
    if isinstance(value, np.ndarray):
        return None
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        try:
            return by_dlpack(value, name, device)
        except CudaError:
            raise
        except (AttributeError, BufferError, RuntimeError, ValueError) as error:
            raise TypeError(
                f"{name}: this {type(value).__name__} cannot be taken through DLPack ({error}); "
                "give a float32 array that needs no gradient"
            ) from error
    interface = getattr(value, "__cuda_array_interface__", None)
    return None if interface is None else by_interface(value, interface, name, device)


def by_dlpack(value: Any, name: str, device: Any) -> Imported | None:
    kind, ordinal = value.__dlpack_device__()
    if kind not in (CUDA, CUDA_MANAGED):
        return None
    check_gpu(ordinal, name, device)
    return dlpack.read(value.__dlpack__(stream=device.stream))


def by_interface(value: Any, interface: dict, name: str, device: Any) -> Imported:
    address, _ = interface["data"]
    if address:  # an empty array may have none
        ordinal = None if device.dlpack_device is None else device.ordinal_of(address)
        check_gpu(ordinal, name, device)
    if interface.get("stream"):
        device.order(interface["stream"], device.stream)
    strides = interface.get("strides")
    return Imported(
        address=address,
        shape=tuple(interface["shape"]),
        strides=None if strides is None else tuple(strides),
        dtype=np.dtype(interface["typestr"]).str.lstrip("<|"),
        owner=value,
    )


def check_gpu(ordinal: int | None, name: str, device: Any) -> None:
    """Check that an array lies on the model's GPU.

    Raises:
        TypeError: it is another one.
    """
    if device.dlpack_device is None or ordinal != device.dlpack_device[1]:
        where = "a GPU" if ordinal is None else f"cuda:{ordinal}"
        raise TypeError(
            f"{name}: the array lies on {where} and the model on {device!r}; "
            "move one of them, or copy the array to the host"
        )


def is_c_order(array: Imported) -> bool:
    """Whether an array is contiguous in C order."""
    if array.strides is None or 0 in array.shape:
        return True
    step = np.dtype("u2" if array.dtype == dlpack.BFLOAT16 else array.dtype).itemsize
    for length, stride in zip(array.shape[::-1], array.strides[::-1], strict=True):
        if length > 1 and stride != step:
            return False
        step *= length
    return True


def to_host(array: Imported, device: Any) -> np.ndarray:
    """Copy of an array with any strides and dtype."""
    is_bfloat16 = array.dtype == dlpack.BFLOAT16
    dtype = np.dtype("u2" if is_bfloat16 else array.dtype)
    strides = array.strides or np.empty(array.shape, dtype).strides
    if 0 in array.shape:
        return np.zeros(array.shape, np.float32)
    steps = [stride * (n - 1) for n, stride in zip(array.shape, strides, strict=True)]
    first, last = sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps)
    memory = np.empty(last - first + dtype.itemsize, np.uint8)  # all between first and last element
    device.copy_to_host(memory, array.address + first)
    host = np.ndarray(array.shape, dtype, memory, -first, strides)
    return (host.astype(np.uint32) << 16).view(np.float32) if is_bfloat16 else host
