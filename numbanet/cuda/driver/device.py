"""One GPU through NVIDIA's driver: memory, copies, kernels."""

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from numbanet.cuda.driver.arguments import Arguments
from numbanet.cuda.driver.calls import checked, compute_capability_of, error_of, handle_of
from numbanet.cuda.driver.memory import DeviceMemory
from numbanet.cuda.errors import CudaError, LaunchError, ToolkitMissingError
from numbanet.cuda.toolchain.assembler import assemble
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.cuda.toolchain.machine_code import PTX, Cubin

CAPTURE_STREAM = 1  # CU_STREAM_NON_BLOCKING
ALWAYS_THERE = 48 * 1024  # bytes of shared memory that a launch gets without asking before
RESERVED = 1024  # bytes of shared memory that each block has beside its own


def why_not(ordinal: int = 0) -> str | None:
    """Reason why the GPU cannot be used, in one line; None if it can."""
    try:
        compute_capability_of(handle_of(ordinal))
    except CudaError as error:
        return str(error)
    return None


def is_available(ordinal: int = 0) -> bool:
    return why_not(ordinal) is None


@dataclass
class LoadedKernel:
    """Kernel on the GPU, ready to be launched."""

    name: str
    function: object  # the driver's handle
    dynamic_limit: int = ALWAYS_THERE  # bytes of shared memory that launches may ask for


class Graph:
    """Kernels and copies that are queued together."""

    def __init__(self, device: "CudaDevice", executable):
        self.executable = executable
        weakref.finalize(self, device.destroy_graph, executable).atexit = False


def assembled(ptx: PTX, compute_capability: tuple[int, int]) -> Cubin | PTX:
    """Machine code, or the PTX itself where no assembler is installed: the driver has one."""
    try:
        return assemble(ptx, compute_capability)
    except ToolkitMissingError:
        return ptx


class CudaDevice(DeviceMemory):
    """One GPU: its memory, its kernels and its stream."""

    def __init__(self, ordinal: int = 0):
        """Start using a GPU.

        Raises:
            NoDriverError, DriverTooOldError, NoSuchDeviceError, DeviceTooOldError: it is unusable.
        """
        handle = handle_of(ordinal)
        self.compute_capability = compute_capability_of(handle)
        super().__init__(handle, ordinal)
        driver = self._driver
        self.name = checked(driver.cuDeviceGetName(128, handle)).split(b"\0")[0].decode()
        attribute = driver.CUdevice_attribute
        self.n_multiprocessors, self.max_shared_bytes, self._shared_bytes = (
            checked(driver.cuDeviceGetAttribute(which, handle))
            for which in (
                attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
                attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR,
            )
        )
        self.total_memory = checked(driver.cuDeviceTotalMem(handle))
        self._built = {}
        self._sides, self._n_sides = [], 0  # streams beside the one of a capture, those in use
        self.lock = threading.RLock()  # of whoever queues work

    def __repr__(self) -> str:
        return f"<cuda:{self.ordinal}, {self.name}>"

    @property
    def dlpack_device(self) -> tuple[int, int]:
        """Type (2 for CUDA) and number of the device in DLPack."""
        return 2, self.ordinal

    # Kernels

    def build(
        self,
        function: Callable,
        argument_types: tuple[str, ...],
        block: int | None = None,
        max_registers: int | None = None,
    ) -> LoadedKernel:
        """Compile a kernel, or find it in the cache, and load it; see compile_ptx.

        Raises:
            DeviceCodeError, ToolkitMissingError: as there.
            DriverTooOldError, LaunchError: as load.
        """
        key = function, argument_types, block, max_registers
        if key not in self._built:
            ptx = compile_ptx(
                function, argument_types, self.compute_capability, max_registers, block
            )
            self._built[key] = self.load(assembled(ptx, self.compute_capability))
        return self._built[key]

    def load(self, code: Cubin | PTX) -> LoadedKernel:
        """Load a kernel onto the GPU; PTX is assembled by the driver.

        Raises:
            DriverTooOldError: the driver does not know this version of PTX.
            LaunchError: the code is for another GPU.
        """
        image = code.image if isinstance(code, Cubin) else code.text.encode() + b"\0"
        module = self._call("cuModuleLoadData", image, doing=f"loading {code.name}")
        function = self._call("cuModuleGetFunction", module, code.name.encode())
        attribute = self._driver.CUfunction_attribute
        limit = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        # Asking also loads the function now, and not in the middle of the first step.
        return LoadedKernel(code.name, function, self._call("cuFuncGetAttribute", limit, function))

    def share_cache(self, kernel: LoadedKernel, n_blocks: int, shared_bytes: int) -> None:
        """Set the L1 cache's carveout: shared memory for n_blocks per multiprocessor."""
        percent = -(-100 * n_blocks * (shared_bytes + RESERVED) // self._shared_bytes)
        attribute = self._driver.CUfunction_attribute
        carveout = attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
        self._call("cuFuncSetAttribute", kernel.function, carveout, min(percent, 100))

    def launch(
        self,
        kernel: LoadedKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        shared_bytes: int,
        arguments: Arguments,
    ) -> None:
        """Queue a kernel; no operation for an empty grid.

        Raises:
            LaunchError: the grid, the block or the shared memory is too large, or an earlier
                kernel has failed.
        """
        grid = (grid, 1, 1) if type(grid) is int else (*grid, 1, 1)[:3]
        block = (block, 1, 1) if type(block) is int else (*block, 1, 1)[:3]
        if 0 in grid:
            return
        if shared_bytes > kernel.dynamic_limit:
            self._allow_shared_memory(kernel, shared_bytes)
        entered = self._enter()
        try:
            (error,) = self._driver.cuLaunchKernel(
                kernel.function, *grid, *block, shared_bytes, self._stream, arguments.address, 0
            )
        finally:
            if entered:
                self._leave()
        if error:
            doing = f"launching {kernel.name}: grid {grid}, block {block}, {shared_bytes} bytes"
            raise error_of(error, doing, LaunchError)

    # Graphs

    def capture(self, queue: Callable[[], None]) -> "Graph":
        """Capture the work that a function queues as a graph, without running it.

        The function allocates nothing, waits for nothing and compiles nothing.
        """
        stream = self._call("cuStreamCreate", CAPTURE_STREAM)
        self._frees, self._capture = [], (threading.get_ident(), stream)
        try:
            executable = self._captured(stream, queue)
        finally:
            self._capture = None
            self._call("cuStreamDestroy", stream)
            frees, self._frees = self._frees, []
            for address in frees:
                self.free(address)
        return Graph(self, executable)

    def _captured(self, stream, queue: Callable[[], None]):
        """Executable graph of the work that a function queues on a stream."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            queue()
        except BaseException:
            with suppress(CudaError):  # a consequence of what the function has raised
                self._call("cuGraphDestroy", self._call("cuStreamEndCapture", stream))
            raise
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)

    def in_parallel(self, *queues: Callable[[], None]) -> None:
        """Queue the work of functions; within a capture, as parallel branches."""
        if not self._is_capturing or len(queues) < 2:
            for queue in queues:
                queue()
            return
        main, first, n = self._stream, self._n_sides, len(queues) - 1
        while len(self._sides) < first + n:
            self._sides.append(self._call("cuStreamCreate", CAPTURE_STREAM))
        sides = self._sides[first : first + n]
        for side in sides:
            self.order(int(main), int(side))
        self._n_sides += n
        thread = threading.get_ident()
        try:
            for stream, queue in zip((main, *sides), queues, strict=True):
                self._capture = thread, stream
                queue()
        finally:
            self._capture = thread, main
            self._n_sides -= n
        for side in sides:
            self.order(int(side), int(main))

    def replay(self, graph: "Graph") -> None:
        """Queue all work of a graph.

        Raises:
            LaunchError: an earlier kernel has failed.
        """
        entered = self._enter()
        try:
            (error,) = self._driver.cuGraphLaunch(graph.executable, self._stream)
        finally:
            if entered:
                self._leave()
        if error:
            raise error_of(error, "launching a graph", LaunchError)

    def destroy_graph(self, executable) -> None:
        """Destroy a graph; errors are not raised, as the process may be ending."""
        entered = self._enter()
        self._driver.cuGraphExecDestroy(executable)
        if entered:
            self._leave()

    def _allow_shared_memory(self, kernel: LoadedKernel, n_bytes: int) -> None:
        if n_bytes > self.max_shared_bytes:
            raise LaunchError(
                f"{kernel.name} needs {n_bytes} bytes of shared memory, "
                f"{self.name} has {self.max_shared_bytes} for a block"
            )
        attribute = self._driver.CUfunction_attribute
        limit = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        self._call("cuFuncSetAttribute", kernel.function, limit, n_bytes)
        kernel.dynamic_limit = n_bytes
