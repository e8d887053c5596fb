"""Device that only compiles: kernels are made ready where there is no GPU.

A model on it runs the same host code as on a GPU, and so asks for exactly the kernels that the GPU
will be asked for, under the same keys on disk. The memory does not exist: reads give 0.
No kernel's code depends on the size of a GPU, only on its compute capability.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from numbanet.cuda.driver.arguments import Arguments
from numbanet.cuda.toolchain.assembler import assemble
from numbanet.cuda.toolchain.compiler import compile_ptx
from numbanet.cuda.toolchain.machine_code import PTX, Cubin

ALIGNMENT = 256  # bytes, as CudaDevice's
# Shared memory of a block, by compute capability; 227 for others (CUDA C++ Programming Guide,
# "Technical Specifications per Compute Capability").
SHARED_KIB = {
    (7, 5): 64,
    (8, 0): 163,
    (8, 6): 99,
    (8, 7): 163,
    (8, 9): 99,
    (12, 0): 99,
    (12, 1): 99,
}


@dataclass(frozen=True, eq=False)
class CompiledKernel:
    """Kernel, its PTX and cubin, and the seconds of compiling it or finding it on disk."""

    name: str
    ptx: PTX
    cubin: Cubin | None  # None where machine code was not asked for
    seconds: float


class CompileOnlyDevice:
    """Stand-in for CudaDevice; `kernels` are those that were asked for.

    Args:
        compute_capability: of the GPU to compile for.
        assembles: False for PTX alone.
        on_built: called with each kernel when it has been compiled, or found on disk.
    """

    stream = 1
    dlpack_device = None  # its addresses mean nothing to other libraries
    ordinal = 0
    n_multiprocessors = 132  # as an H100 has; grids depend on it, code does not

    def __init__(
        self,
        compute_capability: tuple[int, int],
        assembles: bool = True,
        on_built: Callable[[CompiledKernel], None] = lambda kernel: None,
    ):
        self.compute_capability = compute_capability
        self.name = "sm_{}{}".format(*compute_capability)
        self.max_shared_bytes = 1024 * SHARED_KIB.get(compute_capability, 227)
        self.launches = []  # kernels, in the order in which they were launched
        self._assembles, self._on_built = assembles, on_built
        self._built = {}
        self._next_address = ALIGNMENT
        self.lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<compiler for {self.name}>"

    @property
    def kernels(self) -> list[CompiledKernel]:
        return list(self._built.values())

    # Memory

    def allocate(self, n_bytes: int) -> int:
        if n_bytes == 0:
            return 0
        address = self._next_address
        self._next_address += -(-n_bytes // ALIGNMENT) * ALIGNMENT
        return address

    def free(self, address: int) -> None:
        """No operation: addresses are not reused."""

    def memory_info(self) -> tuple[int, int]:
        return 2**40, 2**40

    def zero(self, address: int, n_bytes: int) -> None:
        """No operation: the memory does not exist."""

    def copy(self, target: int, source: int, n_bytes: int) -> None:
        """No operation: the memory does not exist."""

    def zero_rows(self, address: int, pitch: int, n_bytes: int, n_rows: int) -> None:
        """No operation: the memory does not exist."""

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, n_bytes: int,
        n_rows: int,
    ) -> None:  # fmt: skip
        """No operation: the memory does not exist."""

    def copy_to_device(self, address: int, host: np.ndarray) -> None:
        """No operation: the memory does not exist."""

    def copy_to_host(self, host: np.ndarray, address: int) -> None:
        host[...] = 0

    def ordinal_of(self, address: int) -> int | None:
        return None

    def order(self, first: int, second: int) -> None:
        """No operation: nothing is queued."""

    def synchronize(self) -> None:
        """No operation: nothing is queued."""

    def synchronize_all(self) -> None:
        """No operation: nothing is queued."""

    def capture(self, queue: Callable[[], None]) -> list[CompiledKernel]:
        """Graph: the kernels that a function would launch."""
        n_before = len(self.launches)
        queue()
        graph = self.launches[n_before:]
        del self.launches[n_before:]
        return graph

    def in_parallel(self, *queues: Callable[[], None]) -> None:
        """Run the functions one after the other."""
        for queue in queues:
            queue()

    def replay(self, graph: list[CompiledKernel]) -> None:
        """Record the launches of the graph's kernels."""
        self.launches.extend(graph)

    # Kernels

    def share_cache(self, kernel: CompiledKernel, n_blocks: int, shared_bytes: int) -> None:
        """No operation: no cache is divided."""

    def build(
        self,
        function: Callable,
        argument_types: tuple[str, ...],
        block: int | None = None,
        max_registers: int | None = None,
    ) -> CompiledKernel:
        """Compile a kernel and cache it on disk, as CudaDevice does.

        Raises:
            CompilationError, ToolkitMissingError: see compile_ptx and assemble.
        """
        key = function, argument_types, block, max_registers
        if key not in self._built:
            begun = time.perf_counter()
            capability = self.compute_capability
            ptx = compile_ptx(function, argument_types, capability, max_registers, block)
            cubin = assemble(ptx, capability) if self._assembles else None
            seconds = time.perf_counter() - begun
            self._built[key] = CompiledKernel(ptx.name, ptx, cubin, seconds)
            self._on_built(self._built[key])
        return self._built[key]

    def launch(
        self,
        kernel: CompiledKernel,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        shared_bytes: int,
        arguments: Arguments,
    ) -> None:
        """Record the launch of the kernel, unless its grid is empty."""
        if 0 not in ((grid,) if isinstance(grid, int) else grid):
            self.launches.append(kernel)
