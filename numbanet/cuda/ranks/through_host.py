"""Collectives by way of the host's memory."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np

from numbanet.communicator import Communicator
from numbanet.cuda.memory.arrays import DeviceArray


class ThroughHost:
    """Collectives that copy to the host, use the communicator, and copy back."""

    is_queued = False

    def __init__(self, comm: Communicator):
        self._comm = comm

    def share(self, *arrays: DeviceArray) -> None:
        pass  # the host has no such memory

    def together(self):
        return nullcontext()

    def sum(self, source: DeviceArray, total: DeviceArray) -> None:
        total.device.copy_to_device(total.address, self._comm.reduce(source.numpy()))

    def sum_part(self, source: DeviceArray, part: DeviceArray, bounds: Sequence[int]) -> None:
        total = self._comm.reduce_part(source.numpy(), bounds)
        part.device.copy_to_device(part.address, total)

    def fill(self, array: DeviceArray, bounds: Sequence[int]) -> None:
        host, size = array.numpy(), array.dtype.itemsize
        self._comm.fill(host.view(np.uint8), [size * bound for bound in bounds])
        array.device.copy_to_device(array.address, host)
