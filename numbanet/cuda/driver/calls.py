"""Calls of NVIDIA's driver: its start, and exceptions for its error codes."""

from typing import Any

from numbanet.cuda.errors import (
    CudaError,
    DeviceMemoryError,
    DriverTooOldError,
    LaunchError,
    NoDriverError,
    NoSuchDeviceError,
)
from numbanet.cuda.toolchain import toolkit

# After these every further call fails: the memory of this process on the GPU is lost.
FATAL = (
    "ILLEGAL_ADDRESS",
    "ILLEGAL_INSTRUCTION",
    "MISALIGNED_ADDRESS",
    "INVALID_ADDRESS_SPACE",
    "INVALID_PC",
    "LAUNCH_FAILED",
    "LAUNCH_TIMEOUT",
    "ASSERT",
    "ECC_UNCORRECTABLE",
    "HARDWARE_STACK_ERROR",
    "CONTEXT_IS_DESTROYED",
)
KINDS = {
    "OUT_OF_MEMORY": (DeviceMemoryError, "use a smaller batch or model, or free memory of the GPU"),
    "NO_DEVICE": (
        NoDriverError,
        'the driver finds no GPU (nvidia-smi lists them); use device="cpu"',
    ),
    "INVALID_DEVICE": (NoSuchDeviceError, "nvidia-smi lists the GPUs there are"),
    "UNSUPPORTED_PTX_VERSION": (DriverTooOldError, "update NVIDIA's driver"),
    "SYSTEM_DRIVER_MISMATCH": (
        DriverTooOldError,
        "NVIDIA's driver was updated; restart the machine",
    ),
    "NO_BINARY_FOR_GPU": (LaunchError, "the code was compiled for another compute capability"),
    "LAUNCH_OUT_OF_RESOURCES": (LaunchError, "the block needs more registers than there are"),
    "NOT_INITIALIZED": (CudaError, "CUDA does not survive fork(); start processes with spawn"),
    **dict.fromkeys(FATAL, (LaunchError, "all arrays on the GPU are lost; start the process anew")),
}


def bindings():
    """Module of driver functions."""
    toolkit.require_package("cuda.bindings", "cuda-bindings")
    from cuda.bindings import driver

    return driver


def checked(answer: tuple, doing: str = "") -> Any:
    """Value of a driver call, or a tuple of them; raises for an error code.

    Raises:
        CudaError: of the kind that fits, if the call failed.
    """
    if answer[0]:  # CUDA_SUCCESS is 0
        raise error_of(answer[0], doing)
    return answer[1] if len(answer) == 2 else answer[1:]


def error_of(code, doing: str = "", otherwise: type[CudaError] = CudaError) -> CudaError:
    """Exception for an error code; `doing` describes the attempt."""
    name = code.name.removeprefix("CUDA_ERROR_")
    kind, remedy = KINDS.get(name, (otherwise, ""))
    parts = (doing, f"CUDA_ERROR_{name}", remedy)
    return kind(": ".join(part for part in parts if part))


def start() -> int:
    """Start the driver; returns its CUDA version, such as 13000 for 13.0.

    Raises:
        NoDriverError: there is no driver, or no GPU.
        DriverTooOldError: it is older than the installed toolkit.
    """
    driver = bindings()
    from cuda import pathfinder

    try:
        pathfinder.load_nvidia_dynamic_lib("cuda")
    except pathfinder.DynamicLibNotFoundError:
        raise NoDriverError('NVIDIA\'s driver is not installed; use device="cpu"') from None
    checked(driver.cuInit(0))
    version = checked(driver.cuDriverGetVersion())
    needed = toolkit.bindings_version()[0]
    if version // 1000 < needed:
        found = f"{version // 1000}.{version % 1000 // 10}"
        raise DriverTooOldError(
            f"the driver supports CUDA {found}, and the installed toolkit is CUDA {needed}; "
            f'update the driver, or pip install "numbanet[cu{version // 1000}]"'
        )
    return version


def compute_capability_of(device) -> tuple[int, int]:
    """Compute capability of a device handle.

    Raises:
        DeviceTooOldError: it is not supported.
    """
    driver = bindings()
    attribute = driver.CUdevice_attribute
    major, minor = (
        checked(driver.cuDeviceGetAttribute(which, device))
        for which in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    toolkit.check_compute_capability((major, minor))
    return major, minor


def handle_of(ordinal: int):
    """Handle of a GPU; starts the driver.

    Raises:
        NoSuchDeviceError: there are fewer GPUs.
    """
    start()
    driver = bindings()
    count = checked(driver.cuDeviceGetCount())
    if not 0 <= ordinal < count:
        there_are = "1 GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
        raise NoSuchDeviceError(f"there is no cuda:{ordinal}; the driver shows {there_are}")
    return checked(driver.cuDeviceGet(ordinal))
