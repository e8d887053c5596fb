"""Collectives by NCCL, through nccl4py, on the stream of the step."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet.communicator import Communicator, RankError
from numbanet.cuda.memory.arrays import DeviceArray

# NVLink's multicast gains little in sums of this size.
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")


class Nccl:
    """NCCL communicator of the ranks of another communicator, on this process's device."""

    is_queued = True

    def __init__(self, device: Any, comm: Communicator):
        try:
            from cuda.core import Device
            from nccl import core
            from nccl.bindings import nccl as bindings
        except ImportError as error:
            raise RuntimeError(
                f"several GPUs need NCCL: pip install 'numbanet[nccl]' ({error})"
            ) from error
        self._core, self._bindings, self._device, self._comm = core, bindings, device, comm
        self._how, self._bytes = (int(core.FLOAT32), int(core.SUM)), int(core.UINT8)
        own = Device(device.ordinal)
        self._check_devices(own)
        own.set_current()  # on which NCCL begins
        self._nccl = core.Communicator.init(comm.size, comm.rank, self._unique_id())
        self._handle = bindings.Comm(self._nccl.ptr)  # for calls by address
        device.wait_at_most(comm.timeout, self._give_up)

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
        """NCCL's unique id of the communicator, which rank 0 makes."""
        mine = bytearray(bytes(self._core.get_unique_id(empty=self._comm.rank != 0)))
        (first, *_) = self._comm.gather(np.frombuffer(mine, np.uint8))
        return self._core.UniqueId.from_bytes(first.tobytes())

    def _give_up(self) -> None:
        """Raise a RankError: this GPU waits for another rank's."""
        self._comm.barrier()  # which names a rank that does not come
        raise RankError(
            f"rank {self._comm.rank} of {self._comm.size} waited {self._comm.timeout:g} s for what "
            "GPUs do together, as did all others: they make other calls"
        )

    def together(self):
        return self._core.group()

    def sum(self, source: DeviceArray, total: DeviceArray) -> None:
        addresses = source.address, total.address
        self._bindings.all_reduce(*addresses, total.size, *self._how, self._handle, self._stream)

    def sum_part(self, source: DeviceArray, part: DeviceArray, bounds: Sequence[int]) -> None:
        addresses, n = (source.address, part.address), bounds[1] - bounds[0]
        self._bindings.reduce_scatter(*addresses, n, *self._how, self._handle, self._stream)

    def fill(self, array: DeviceArray, bounds: Sequence[int]) -> None:
        n = (bounds[1] - bounds[0]) * array.dtype.itemsize
        addresses = array.address + self._comm.rank * n, array.address
        self._bindings.all_gather(*addresses, n, self._bytes, self._handle, self._stream)

    @property
    def _stream(self) -> int:
        return self._device.stream
