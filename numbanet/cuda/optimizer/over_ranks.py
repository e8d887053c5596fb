"""What a step does beyond its own device, where several ranks make it together.

All is queued in the order of the step: votes on whether it runs, the sums of the gradients, and the
parameters of those who stepped them.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.communicator import Communicator
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.parameters import ROOM, CudaParameters, aligned
from numbanet.cuda.optimizer import kernels, rank_kernels
from numbanet.cuda.ranks.collectives import Collectives, collectives, resized
from numbanet.division import Division, divide
from numbanet.engine import LossSums
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.storage.views import FLOAT_BYTES

QUANTUM = 32  # parameters: whole lines of memory
# Below, one sum over all ranks takes less time than a sum in parts and telling the parameters.
LEAST = 1 << 21


def division_for(optimizer: AbstractOptimizer, layout: ParamLayout, comm: Communicator) -> Division:
    """Which parameters this rank steps; all of them where parts would need more room than ROOM."""
    if comm.size * QUANTUM > ROOM:
        return Division(layout.n_params)
    return divide(optimizer, layout, comm, QUANTUM, LEAST)


def address_before(array: DeviceArray, n: int) -> int:
    """Where n more float32 before an array would begin; it may be an address of nothing."""
    return (array.address - n * FLOAT_BYTES) % 2**64


def behind(array: DeviceArray) -> DeviceArray:
    """Room for votes behind a vector that is `aligned`."""
    return resized(array, array.size + rank_kernels.N_VOTES)[array.size :]


class OverRanks:
    """The memory and the kernels of what ranks tell each other, made at the first step."""

    def __init__(self, device: Any, comm: Communicator, division: Division, layout: ParamLayout):
        self._device, self._comm, self._division = device, comm, division
        self._layout = layout

    @cached_property
    def _collectives(self) -> Collectives:
        return collectives(self._device, self._comm)

    @property
    def is_queued(self) -> bool:
        return self._collectives.is_queued

    @cached_property
    def _votes(self) -> DeviceArray:
        return empty((2, rank_kernels.N_VOTES), np.float32, self._device)

    @cached_property
    def _sums(self) -> DeviceArray:
        """Room for the gradients that this rank steps with, of all ranks."""
        bounds, n = self._division.bounds, self._layout.n_params
        if bounds is None:
            return aligned(self._device, n, "float32", self._layout.n_matrix_params)
        return empty((bounds[1] - bounds[0],), np.float32, self._device)

    @cached_property
    def _clear(self) -> Kernel:
        return Kernel(self._device, rank_kernels.clear_skipped)

    def vote(
        self, kernel: Kernel, checked: Sequence[DeviceArray], loss: LossSums | None, control: int,
        gradients: DeviceArray | None = None,
    ) -> DeviceArray:  # fmt: skip
        """The loss of all ranks, and infinity if one of them found something that is not finite.

        Args:
            kernel: of vote_kernel.
            checked: what is looked into, up to MOST_CHECKED arrays.
            loss: the own part of the loss.
            gradients: to be summed too; see `summed`.
        """
        own, of_all = self._votes[0], self._votes[1]
        in_one = gradients is not None and self._division.bounds is None
        if in_one:  # a second sum would take as long as one of a megabyte
            own, of_all = behind(gradients), behind(self._sums)
        most = max((array.size for array in checked), default=1)
        kernel(
            min(-(-most // BLOCK), kernels.MOST_BLOCKS),
            *(number for array in checked for number in (array.address, array.size)),
            *((0, 0) * (kernels.MOST_CHECKED - len(checked))),
            *((0, 0, 0.0) if loss is None else (loss.sums.address, loss.n, 1.0 / loss.n_elements)),
            *(control, own.address),
        )
        if in_one:
            n = gradients.size + rank_kernels.N_VOTES
            self._collectives.sum(resized(gradients, n), resized(self._sums, n))
        else:
            with self._collectives.together():
                self._collectives.sum(own, of_all)
                if gradients is not None:
                    self._collectives.sum_part(gradients, self._sums, self._division.bounds)
        return of_all

    @property
    def summed(self) -> int:
        """Where the sums of all ranks' gradients would begin, if this rank had all of them."""
        return address_before(self._sums, self._division.own[0])

    def end(self, gradients: DeviceArray, parameters: CudaParameters, control: int) -> None:
        """After the optimizer's step: tell the parameters, zero gradients that did not count."""
        if self._division.bounds is not None:
            self._collectives.fill(parameters.master, self._division.bounds)
            parameters.renew_copy()
        self._clear.over(gradients.size, gradients.address, gradients.size, control)

    def whole(self, rows: DeviceArray) -> np.ndarray:
        """Rows of the own parameters' state, with those of all."""
        bounds, (first, last) = self._division.bounds, self._division.own
        if bounds is None:
            return rows.numpy()
        whole = aligned(self._device, self._layout.n_params, "float32", 0)
        host = np.empty((len(rows), whole.size), np.float32)
        for k in range(len(rows)):
            to = whole[first:last]
            self._device.copy(to.address, rows[k].address, to.nbytes)
            self._collectives.fill(whole, bounds)
            host[k] = whole.numpy()
        return host
