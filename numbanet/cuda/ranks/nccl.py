"""Collectives by NCCL, through nccl4py, on the stream of the step."""

import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import numpy as np

from numbanet.communicator import Communicator, RankError
from numbanet.cuda.memory.arrays import DeviceArray
from numbanet.cuda.ranks.shared_memory import SharedMemory, free, make_current

# NVLink's multicast gains little in sums of this size.
os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
MIN_BLOCKS = 32  # with fewer, of NCCL's choice, shared memory is not read at the links' rate


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
        hosts = self._check_devices(Device(device.ordinal).uuid)
        make_current(device)  # on which NCCL begins
        config = core.NCCLConfig(min_ctas=MIN_BLOCKS) if len(hosts) == 1 else None
        self._nccl = core.Communicator.init(comm.size, comm.rank, self._unique_id(), config)
        self._handle = bindings.Comm(self._nccl.ptr)  # for calls by address
        self._known = WeakSet()  # memory that the ranks have agreed about
        self._windows, self._returned = {}, []  # by number; see SharedMemory
        self._n_windows = 0  # that there have been
        device.wait_at_most(comm.timeout, self._give_up)

    def _check_devices(self, uuid: Any) -> set[str]:
        """Hosts of the ranks; raise RankError on all of them if two have the same GPU."""
        texts = self._comm.gather_text(f"{uuid} {platform.node()}")
        names, hosts = zip(*(text.split(" ", 1) for text in texts), strict=True)
        for rank, name in enumerate(names):
            first = names.index(name)
            if first != rank:
                raise RankError(
                    f"ranks {first} and {rank} of {len(names)} are both on GPU {name}; give each "
                    "one of its own, for example with device='cuda'"
                )
        return set(hosts)

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

    def share(self, *arrays: DeviceArray) -> None:
        """Open windows to memory that is exchanged for the first time; all ranks do so together."""
        new = [array.owner for array in arrays if array.owner not in self._known]
        if not new:
            return
        make_current(self._device)
        self._free_returned()
        for owner in dict.fromkeys(new):
            self._known.add(owner)
            can_share = type(owner) is SharedMemory and not owner.has_window
            if self._all(can_share):
                self._open(owner)

    def _all(self, is_so: bool) -> bool:
        """Whether something holds on all ranks."""
        return bool(self._comm.gather(np.array([is_so], np.int64)).all())

    def _open(self, owner: SharedMemory) -> None:
        """Open a window, or leave the memory plain if that fails on a rank."""
        symmetric, window = int(self._core.WindowFlag.COLL_SYMMETRIC), 0
        where = owner.address, owner.n_bytes
        with suppress(self._bindings.NCCLError):  # sums in plain memory take longer, that is all
            window = self._bindings.comm_window_register(self._handle, *where, symmetric)
        if self._all(bool(window)):
            owner.number, owner.returned = self._n_windows, self._returned
            self._windows[owner.number] = window
            self._n_windows += 1
        elif window:
            self._bindings.comm_window_deregister(self._handle, window)

    def _free_returned(self) -> None:
        """Free what all ranks have returned, after what the GPUs may still do with it."""
        mine = dict(tuple(self._returned))
        self._device.synchronize()
        texts = self._comm.gather_text(" ".join(map(str, mine)))
        of_all = sorted(map(int, set.intersection(*(set(text.split()) for text in texts))))
        for number in of_all:
            self._bindings.comm_window_deregister(self._handle, self._windows.pop(number))
            self._returned.remove((number, mine[number]))
        free(self._device, [mine[number] for number in of_all])

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
