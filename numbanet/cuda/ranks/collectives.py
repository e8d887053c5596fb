"""Collective operations of the GPUs of several ranks: sums, and copies of parts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numbanet.communicator import Communicator
from numbanet.cuda.memory.arrays import DeviceArray


class Collectives(Protocol):
    """Operations on vectors, in the device's stream; all ranks make the same calls.

    Sums are those of float32 vectors. Parts are all as large as the first one: behind the vector,
    and behind a part that is shorter, there is room for that.
    """

    is_queued: bool  # whether the host waits for nothing, so that a graph can hold it

    def share(self, *arrays: DeviceArray) -> None:
        """Prepare the exchange of vectors, at the first time; outside of `together`."""

    def together(self) -> AbstractContextManager:
        """Context within which the operations may be done at once."""

    def sum(self, source: DeviceArray, total: DeviceArray) -> None:
        """Write the sum over all ranks, the same bits on each."""

    def sum_part(self, source: DeviceArray, part: DeviceArray, bounds: Sequence[int]) -> None:
        """Write the sum over all ranks of this rank's part of a vector."""

    def fill(self, array: DeviceArray, bounds: Sequence[int]) -> None:
        """Copy each rank's own part of a vector, of any type, to all ranks."""


def collectives(device: Any, comm: Communicator) -> Collectives:
    """Collectives by NCCL; through the host's memory for a device that no other library knows.

    There is one for each device of a communicator.

    Raises:
        RuntimeError: NCCL or its bindings are not installed, or the ranks cannot meet.
    """
    if device.dlpack_device is None:
        from numbanet.cuda.ranks.through_host import ThroughHost

        return ThroughHost(comm)
    from numbanet.cuda.ranks.nccl import Nccl

    if device.ordinal not in comm.collectives:
        comm.collectives[device.ordinal] = Nccl(device, comm)
    return comm.collectives[device.ordinal]


def resized(array: DeviceArray, n: int) -> DeviceArray:
    """Vector of n elements at the same address; the memory behind it must suffice."""
    return DeviceArray((n,), array.dtype, array.address, array.owner, array.device)
