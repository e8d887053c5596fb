"""Protocol of devices for the CUDA target: a GPU, an emulated one, or one that only compiles."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Device(Protocol):
    """GPU or a stand-in: memory by addresses, kernels, graphs.

    Work is queued on `stream` in the order of the calls; copies to and from the host wait for it.
    """

    ordinal: int
    name: str
    compute_capability: tuple[int, int]
    n_multiprocessors: int
    max_shared_bytes: int  # of a block
    stream: int
    dlpack_device: tuple[int, int] | None  # None where other libraries cannot use the addresses
    lock: Any  # re-entrant; of whoever queues work

    def allocate(self, n_bytes: int) -> int:
        """Address of new memory, uninitialised, aligned to 256 bytes; 0 for no bytes."""

    def free(self, address: int) -> None: ...

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of memory."""

    def zero(self, address: int, n_bytes: int) -> None: ...

    def copy(self, target: int, source: int, n_bytes: int) -> None: ...

    def zero_rows(self, address: int, pitch: int, n_bytes: int, n_rows: int) -> None:
        """Zero n_rows pieces of n_bytes, `pitch` bytes apart."""

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, n_bytes: int,
        n_rows: int,
    ) -> None:  # fmt: skip
        """Copy n_rows pieces of n_bytes, a pitch apart."""

    def copy_to_device(self, address: int, host: np.ndarray) -> None: ...

    def copy_to_host(self, host: np.ndarray, address: int) -> None: ...

    def ordinal_of(self, address: int) -> int | None:
        """Number of the GPU that an address belongs to; None for the host's."""

    def order(self, first: int, second: int) -> None:
        """Make work queued on the second stream from now on wait for that on the first."""

    def synchronize(self) -> None: ...

    def synchronize_all(self) -> None: ...

    def build(
        self, function: Callable, argument_types: tuple[str, ...], block: int | None = None,
        max_registers: int | None = None,
    ) -> Any:  # fmt: skip
        """Kernel that can be launched, compiled once."""

    def share_cache(self, kernel: Any, n_blocks: int, shared_bytes: int) -> None:
        """Divide the L1 cache so that n_blocks have enough shared memory."""

    def launch(
        self, kernel: Any, grid: int | tuple, block: int | tuple, shared_bytes: int, arguments: Any
    ) -> None: ...

    def capture(self, queue: Callable[[], None]) -> Any:
        """Capture the work that `queue` queues as a graph, without running it."""

    def in_parallel(self, *queues: Callable[[], None]) -> None:
        """Queue the work of functions; within a capture, as parallel branches."""

    def replay(self, graph: Any) -> None: ...
