"""Communication of an optimizer's step that several ranks make together.

All is queued in the order of the step: votes on whether it runs, the sums of the gradients, and the
parameters of those who stepped them.
"""

import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.communicator import Communicator
from numbanet.cuda.launch.kernel import BLOCK, Kernel
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.parameters import ROOM, CudaParameters, address_before, aligned
from numbanet.cuda.optimizer import kernels, rank_kernels
from numbanet.cuda.optimizer.optimizer_kernels import OptimizerKernels
from numbanet.cuda.ranks.collectives import Collectives, collectives, resized
from numbanet.cuda.ranks.shared_memory import memory_of_rank
from numbanet.division import Division, divide
from numbanet.engine import LossSums
from numbanet.losses.base import AbstractLoss
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout

QUANTUM = 32  # parameters: whole lines of memory
# Below, one sum over all ranks takes less time than a sum in parts and telling the parameters.
LEAST = 1 << 21


def division_for(optimizer: AbstractOptimizer, layout: ParamLayout, comm: Communicator) -> Division:
    """Division of the parameters among ranks; trivial where it would need more memory than ROOM."""
    if comm.size * QUANTUM > ROOM:
        return Division(layout.n_params)
    return divide(optimizer, layout, comm, QUANTUM, LEAST)


def behind(array: DeviceArray, n: int) -> DeviceArray:
    """Memory for n votes behind a vector that is `aligned`."""
    return resized(array, array.size + n)[array.size :]


def address_and_size(array: DeviceArray) -> tuple[int, int]:
    return array.address, array.size


class OverRanks:
    """Memory and kernels of the communication between ranks, made at the first step."""

    def __init__(self, device: Any, comm: Communicator, division: Division, layout: ParamLayout):
        self._device, self._comm, self._division = device, comm, division
        self._layout = layout
        self._n_votes = comm.size * rank_kernels.N_VOTES
        self._latest = None, None
        self._is_begun = False

    def prepare(
        self, optimizer: AbstractOptimizer, loss: AbstractLoss | None, parameters: CudaParameters
    ) -> None:
        """Prepare a step: set the options that are compared with the other ranks'."""
        if not self._is_begun:
            self._begin(parameters)
        if self._latest[0] is not optimizer or self._latest[1] is not loss:
            self._latest = optimizer, loss
            number = zlib.crc32(repr(self._latest).encode()) % rank_kernels.LARGEST_OPTIONS
            host = np.array([number], np.float32)
            self._device.copy_to_device(self._options.address, host)

    def _begin(self, parameters: CudaParameters) -> None:
        """Divide the master values among the ranks, unless someone holds them on any rank."""
        is_held = np.array([parameters.is_held], np.int64)
        if self._division.bounds is not None and not self._comm.gather(is_held).any():
            parameters.keep_part(*self._division.own, self._share_values)
        self._is_begun = True

    def _share_values(self, values: DeviceArray) -> None:
        self._comm.barrier()  # which names a rank that does not ask
        self._collectives.fill(values, self._division.bounds)

    @cached_property
    def _options(self) -> DeviceArray:
        return empty((1,), np.float32, self._device)

    @cached_property
    def _collectives(self) -> Collectives:
        return collectives(self._device, self._comm)

    @property
    def is_queued(self) -> bool:
        return self._collectives.is_queued

    @cached_property
    def _votes(self) -> DeviceArray:
        return empty((2, self._n_votes), np.float32, self._device)

    @cached_property
    def _sums(self) -> DeviceArray:
        """Memory for the sums over all ranks of the gradients that this rank steps with."""
        bounds, n = self._division.bounds, self._layout.n_params
        if bounds is None:
            boundary = self._layout.aligned_param
            return aligned(self._device, n, "float32", boundary, memory_of_rank)
        return empty((bounds[1] - bounds[0],), np.float32, self._device)

    @cached_property
    def _clear(self) -> Kernel:
        return Kernel(self._device, rank_kernels.clear_skipped)

    def vote(
        self, kernel: Kernel, checked: Sequence[DeviceArray], loss: LossSums | None, control: int,
        gradients: DeviceArray | None = None, n_samples: int = 0,
    ) -> DeviceArray:  # fmt: skip
        """Votes of all ranks; see rank_kernels.

        Args:
            kernel: of vote_kernel.
            checked: arrays to check for infinities and NaN, up to MOST_CHECKED.
            loss: the own part of the loss.
            gradients: to be summed too; see `summed`.
            n_samples: the own ones.
        """
        if gradients is not None:
            self._collectives.share(gradients, self._sums)
        own, of_all, n_votes = self._votes[0], self._votes[1], self._n_votes
        in_one = gradients is not None and self._division.bounds is None and n_votes <= ROOM
        if in_one:  # a second sum would take as long as one of a megabyte
            own, of_all = behind(gradients, n_votes), behind(self._sums, n_votes)
        most = max((array.size for array in checked), default=1)
        kernel(
            min(-(-most // BLOCK), kernels.MOST_BLOCKS),
            *(number for array in checked for number in (array.address, array.size)),
            *((0, 0) * (kernels.MOST_CHECKED - len(checked))),
            *((0, 0, 0.0) if loss is None else (loss.sums.address, loss.n, 1.0 / loss.n_elements)),
            *(control, own.address, self._comm.rank, self._comm.size, n_samples),
            self._options.address,
        )
        if in_one:
            n = gradients.size + n_votes
            self._collectives.sum(resized(gradients, n), resized(self._sums, n))
        else:
            with self._collectives.together():
                self._collectives.sum(own, of_all)
                if gradients is not None and self._division.bounds is None:
                    self._collectives.sum(gradients, self._sums)
                elif gradients is not None:
                    self._collectives.sum_part(gradients, self._sums, self._division.bounds)
        return of_all

    def finish(
        self, found: OptimizerKernels, given: tuple, checked: Sequence[DeviceArray],
        loss: LossSums, device_memory: tuple[int, int], run_optimizer: bool,
    ) -> None:  # fmt: skip
        """Vote on a step, sum the gradients, weight the results, and decide whether it runs.

        Args:
            given: as to the engine's forward_backward.
            device_memory: the addresses of `control` and the history.
        """
        batch, _, _, gradients, dl_dinput = given
        control, _ = device_memory
        own = gradients.flat if run_optimizer else None
        votes = self.vote(found.vote, checked, loss, control, own, len(batch))
        weighted = [own, self._sums, dl_dinput] if batch.is_nominal else [None] * 3
        most = max((each.size for each in weighted if each is not None), default=1)
        found.finish_of_ranks(
            min(-(-most // BLOCK), rank_kernels.MOST_BLOCKS),
            *(votes.address, self._comm.size, batch.n_rows if batch.is_nominal else 0),
            int(batch.external_dl_dy is not None),
            *(n for each in weighted for n in ((0, 0) if each is None else address_and_size(each))),
            *(*device_memory, found.hyperparams.address, found.scalars.address),
            int(run_optimizer),
        )

    def cleared(self, gradients: DeviceArray) -> int:
        """Address of the gradients that the optimizer's kernel zeroes, if they do not count."""
        return gradients.address if self._division.bounds is None else 0

    @property
    def summed(self) -> int:
        """Address of the gradients' sums over all ranks, as if this rank held all of them."""
        return address_before(self._sums, self._division.own[0])

    def end(self, gradients: DeviceArray, parameters: CudaParameters, control: int) -> None:
        """Finish the optimizer's step: share the parameters, zero gradients that did not count."""
        if self._division.bounds is not None:
            self._share(parameters)
            n_blocks = min(-(-gradients.size // BLOCK), rank_kernels.MOST_BLOCKS)
            self._clear(n_blocks, gradients.address, gradients.size, control)

    def _share(self, parameters: CudaParameters) -> None:
        """Share what kernels read of the parameters, of which the optimizer wrote the own part."""
        is_divided, bounds = parameters.is_divided, self._division.bounds
        shared = parameters.copy if is_divided else parameters.own
        self._collectives.share(shared)
        self._collectives.fill(shared, bounds)
        if not is_divided:
            parameters.renew_copies_of_others(*self._division.own)

    def whole(self, rows: DeviceArray) -> np.ndarray:
        """Rows of the state of all parameters, from those of the ranks' parts."""
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
