"""Sums over GPUs by NCCL, through nccl4py, on the stream of the step."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.communicator import Communicator, RankError
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.ranks.collectives import resized

# NVLink's multicast gains little in sums of this size.
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")


class Nccl:
    """A communicator of NCCL with the ranks of another one, whose device is this process's."""

    is_queued = True

    def __init__(self, device: Any, comm: Communicator):
        try:
            from cuda.core import Device
            from nccl import core
        except ImportError as error:
            raise RuntimeError(
                f"several GPUs need NCCL: pip install 'numbanet[nccl]' ({error})"
            ) from error
        self._core, self._device, self._comm = core, device, comm
        own = Device(device.ordinal)
        self._check_devices(own)
        own.set_current()  # on which NCCL begins
        self._nccl = core.Communicator.init(comm.size, comm.rank, self._unique_id())

    def _check_devices(self, own: Any) -> None:
        """Raise RankError on all ranks if two have the same GPU."""
        names = self._comm.gather_text(str(own.uuid))
        for rank, name in enumerate(names):
            first = names.index(name)
            if first != rank:
                raise RankError(
                    f"ranks {first} and {rank} of {len(names)} are both on GPU {name}; give each "
                    "one of its own, for example with device='cuda'"
                )

    def _unique_id(self) -> Any:
        """NCCL's name of this meeting, which rank 0 makes."""
        mine = bytes(self._core.get_unique_id(empty=self._comm.rank != 0))
        (first, *_) = self._comm.gather(np.frombuffer(mine, np.uint8))
        return self._core.UniqueId.from_bytes(first.tobytes())

    def together(self):
        return self._core.group()

    def sum(self, source: DeviceArray, total: DeviceArray) -> None:
        self._nccl.allreduce(Seen(source), Seen(total), self._core.SUM, stream=self._device.stream)

    def sum_part(self, source: DeviceArray, part: DeviceArray, bounds: Sequence[int]) -> None:
        whole, n = with_room(source, bounds)
        part = Seen(resized(part, n))
        self._nccl.reduce_scatter(Seen(whole), part, self._core.SUM, stream=self._device.stream)

    def fill(self, array: DeviceArray, bounds: Sequence[int]) -> None:
        whole, n = with_room(array, bounds)
        own = whole[self._comm.rank * n : (self._comm.rank + 1) * n]
        self._nccl.allgather(Seen(own), Seen(whole), stream=self._device.stream)


class Seen:
    """An array by address alone: taken through DLPack, its return would wait for the device."""

    __slots__ = ("__cuda_array_interface__",)

    def __init__(self, array: DeviceArray):
        self.__cuda_array_interface__ = array.__cuda_array_interface__


def with_room(array: DeviceArray, bounds: Sequence[int]) -> tuple[DeviceArray, int]:
    """A vector with the room behind it, in which all parts are as large as the first; that size."""
    n = bounds[1] - bounds[0]
    return resized(array, (len(bounds) - 1) * n), n
