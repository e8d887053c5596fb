"""Memory that the GPUs of several ranks read and write without copies in between.

NCCL finds it by windows, at offsets that are equal on all ranks as long as these open and close
them in the same order. So memory that is no longer used is returned to a list, and freed when all
ranks have returned theirs.
"""

from collections import defaultdict
from typing import Any

from numbanet.cuda.memory.arrays import Memory

NO_WINDOW = -1
RETURNED = defaultdict(list)  # by device: see SharedMemory.returned; memory that had no window


class SharedMemory:
    """Memory by NCCL, of a size that is equal on all ranks.

    Attributes:
        number: of its window, which is equal on all ranks.
        returned: the list to which number and address are returned when nothing refers to the
            memory any more.
    """

    def __init__(self, device: Any, n_bytes: int):
        self.n_bytes, self.address = n_bytes, 0
        self.number, self.returned = NO_WINDOW, RETURNED[device.ordinal]
        from nccl.bindings import nccl

        make_current(device)
        try:
            self.address = int(nccl.mem_alloc(n_bytes))
        except nccl.NCCLError as error:
            raise RuntimeError(f"no {n_bytes} bytes that GPUs share: {error}") from error

    @property
    def has_window(self) -> bool:
        return self.number != NO_WINDOW

    def __del__(self):
        if self.address:
            self.returned.append((self.number, self.address))


def make_current(device: Any) -> None:
    """Set the device that NCCL's next call is about."""
    from cuda.core import Device

    Device(device.ordinal).set_current()


def free(device: Any, addresses: list[int]) -> None:
    """Free shared memory without windows, of which no other rank has the address."""
    if not addresses:
        return
    from nccl.bindings import nccl

    make_current(device)
    device.synchronize()
    for address in addresses:
        nccl.mem_free(address)


def memory_of_rank(device: Any, n_bytes: int) -> Memory | SharedMemory:
    """Memory for a vector that ranks exchange; plain where NCCL is missing or has none."""
    if device.dlpack_device is None or n_bytes == 0:
        return Memory(device, n_bytes)
    returned = RETURNED[device.ordinal]
    free(device, [returned.pop()[1] for _ in range(len(returned))])
    try:
        return SharedMemory(device, n_bytes)
    except (ImportError, RuntimeError):
        return Memory(device, n_bytes)
