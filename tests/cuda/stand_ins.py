"""A driver without a GPU, and a device without a driver."""

import ctypes

import numpy as np


class FakeDriver:
    """Driver functions that note their calls and succeed, but where `answers` says otherwise."""

    def __init__(self, real):
        self._real = real
        self.calls = []
        self.answers = {
            "cuDriverGetVersion": (99000,),
            "cuDeviceGetCount": (1,),
            "cuDeviceGet": ("handle",),
            "cuDeviceGetName": (b"Fake GPU\0\0",),
            "cuDeviceTotalMem": (2**30,),
            "cuDevicePrimaryCtxRetain": (77,),
            "cuCtxGetCurrent": (0,),
            "cuMemPoolCreate": ("pool",),
            "cuMemAllocFromPoolAsync": (4096,),
            "cuMemGetInfo": (2**20, 2**30),
            "cuEventCreate": ("event",),
            "cuModuleLoadData": ("module",),
            "cuModuleGetFunction": ("function",),
            "cuFuncGetAttribute": (48 * 1024,),
        }
        self.attributes = {
            "COMPUTE_CAPABILITY_MAJOR": 9,
            "MULTIPROCESSOR_COUNT": 132,
            "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN": 227 * 1024,
            "MAX_SHARED_MEMORY_PER_MULTIPROCESSOR": 228 * 1024,
            "MEMORY_POOLS_SUPPORTED": 1,
        }
        self.failures = {}  # name -> codes of the next calls

    def __getattr__(self, name):
        if not name.startswith("cu") or name == "cuuint64_t":
            return getattr(self._real, name)

        def call(*arguments):
            self.calls.append((name, *arguments))
            if self.failures.get(name):
                code = getattr(self._real.CUresult, f"CUDA_ERROR_{self.failures[name].pop(0)}")
                return (code, *(None for _ in self.answers.get(name, ())))
            return (self._real.CUresult.CUDA_SUCCESS, *self.answers.get(name, ()))

        return call

    def cuDeviceGetAttribute(self, which, handle):
        name = which.name.removeprefix("CU_DEVICE_ATTRIBUTE_")
        return self._real.CUresult.CUDA_SUCCESS, self.attributes.get(name, 0)

    def CUstream(self, address):
        return address

    def named(self, *names):
        """The calls of some functions, in their order."""
        return [call for call in self.calls if call[0] in names]


class HostDevice:
    """A device whose memory is the host's: `device` is what DLPack calls it."""

    stream = 1

    def __init__(self, device=(2, 0)):
        self.dlpack_device = device
        self.memory = {}
        self.ordered = []
        self.n_copies = 0

    def __repr__(self):
        return "<host memory>"

    def allocate(self, n_bytes):
        buffer = np.full(n_bytes, 0xFF, np.uint8)
        self.memory[buffer.ctypes.data] = buffer
        return buffer.ctypes.data

    def free(self, address):
        del self.memory[address]

    def zero(self, address, n_bytes):
        ctypes.memset(address, 0, n_bytes)

    def copy(self, target, source, n_bytes):
        ctypes.memmove(target, source, n_bytes)

    def copy_to_device(self, address, host):
        self.n_copies += 1
        ctypes.memmove(address, host.ctypes.data, host.nbytes)

    def copy_to_host(self, host, address):
        self.n_copies += 1
        ctypes.memmove(host.ctypes.data, address, host.nbytes)

    def order(self, first, second):
        self.ordered.append((first, second))

    def synchronize_all(self):
        self.ordered.append("all")

    def ordinal_of(self, address):
        return self.dlpack_device[1]
