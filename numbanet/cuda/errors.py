"""Errors of NVIDIA's toolkit, the driver and the GPU.

Every message says what was found and what to do about it.
"""


class CudaError(RuntimeError):
    """Base of errors: a requirement of the CUDA target is missing, too old, exhausted or broken."""


class NoDriverError(CudaError):
    """The NVIDIA driver is missing, or there is no GPU behind it."""


class DriverTooOldError(CudaError):
    """The driver does not support the output of the installed toolkit."""


class NoSuchDeviceError(CudaError):
    """No GPU has this number."""


class DeviceTooOldError(CudaError):
    """The GPU's compute capability is not supported."""


class DeviceMemoryError(CudaError):
    """The GPU has too little free memory."""


class LaunchError(CudaError):
    """A kernel could not be launched, or failed while it ran."""


class ToolkitMissingError(CudaError):
    """A part of NVIDIA's toolkit, or numba-cuda, is not installed."""


class CompilationError(CudaError):
    """The PTX of a kernel does not assemble for this GPU."""
