"""Passes over a batch in equal pieces, whose gradients are added in pairs, alike on all ranks.

A piece is evaluated in the same way wherever that is done, with the same sums in every run. They
are added in the same order, by one rank or by several: as cpu/pieces.py does it.
"""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.communicator import Communicator
from numbanet.cuda.launch.kernel import Kernel
from numbanet.cuda.launch.threads import WARP, thread_number
from numbanet.cuda.launch.types import Address, UInt
from numbanet.cuda.memory.arrays import DeviceArray, empty
from numbanet.cuda.memory.loss_sums import write_mean
from numbanet.cuda.memory.parameters import aligned
from numbanet.cuda.ranks.collectives import Collectives, collectives
from numbanet.engine import Batch, Gradients, LossSums
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import FLOAT_BYTES, float_vector

OF_SAMPLES = "inputs", "targets", "pdf", "external_dl_dy"
FOUR, TWO = np.uint32(4), np.uint32(2)  # numbers that an access takes


def add_pairs(pvalues: Address, n_rows: UInt, pitch: UInt, n: UInt):
    """(values, n_rows, pitch, n): the first of rows [n_rows, n], a power of two, becomes their sum.

    Neighbours are added, then the sums of neighbours, and so on; other rows are used up.
    """
    i, values, distance = thread_number(), float_vector(pvalues, n_rows * pitch), np.uint32(1)
    while i < n and distance < n_rows:
        k = np.uint32(0)
        while k < n_rows:
            first = np.uint64(k) * np.uint64(pitch) + np.uint64(i)
            second = np.uint64(k + distance) * np.uint64(pitch) + np.uint64(i)
            values[first] += values[second]
            k += TWO * distance
        distance *= TWO


def add_vector(pvalues: Address, pmore: Address, n: UInt):
    """(values, more, n): values += more."""
    i = thread_number()
    if i < n:
        float_vector(pvalues, n)[i] += float_vector(pmore, n)[i]


class PieceByPiece:
    """Forward and backward pass of an engine, whose gradients and loss are those of all ranks.

    Args:
        device: a CudaDevice, or anything with its methods.
        engine: which is deterministic whenever it is used here.
    """

    def __init__(self, device: Any, engine: Any, comm: Communicator):
        self._device, self._engine, self._comm = device, engine, comm
        self.model, self.precision = engine.model, engine.precision
        self._n = self.model.n_params
        self._pitch = -(-self._n // int(FOUR)) * int(FOUR)

    def use(self, engine: Any) -> None:
        """Evaluate the pieces by another engine of the same parameters."""
        self._engine = engine

    @property
    def generation(self) -> int:
        return self._engine.generation

    @property
    def is_queued(self) -> bool:
        """Whether passes run without the host."""
        return self._comm.size == 1 or self._collectives.is_queued

    @cached_property
    def _collectives(self) -> Collectives:
        return collectives(self._device, self._comm)

    @cached_property
    def _losses(self) -> DeviceArray:
        return empty((self._comm.pieces,), np.float32, self._device)

    @cached_property
    def _rows(self) -> DeviceArray:
        """Gradients of each rank."""
        return self._vectors(self._comm.size)

    @cached_property
    def _sums(self) -> DeviceArray:
        """Gradients of 1, 2, 4, ... pieces that wait for as many more to be added."""
        return self._vectors(self._comm.own_pieces.bit_length())

    def _vectors(self, n: int) -> DeviceArray:
        return aligned(self._device, n * self._pitch, "float32", self.model.network.n_params)

    @cached_property
    def _kernels(self) -> tuple[Kernel, Kernel, Kernel]:
        return (
            Kernel(self._device, write_mean, WARP),
            Kernel(self._device, add_vector),
            Kernel(self._device, add_pairs),
        )

    def forward_backward(
        self, batch: Batch, params: DeviceArray, loss: AbstractLoss | None = None,
        gradients: Gradients | None = None, dl_dinput: DeviceArray | None = None, *,
        overwrite: bool = False,
    ) -> LossSums:  # fmt: skip
        self._engine.deterministic = True
        write_mean_loss, add, add_up = self._kernels
        n_own, rank, n = self._comm.own_pieces, self._comm.rank, self._n
        size, own = len(batch) // n_own, self._rows[rank * self._pitch :][:n]
        for k in range(n_own):
            # Piece k is added to the waiting sums: with 3 (11 in binary) to 2, then to 0 and 1.
            level = (~k & (k + 1)).bit_length() - 1
            to = own if k == n_own - 1 else self._sums[level * self._pitch :][:n]
            rows = slice(k * size, (k + 1) * size)
            found = self._engine.forward_backward(
                rows_of(batch, rows), params, loss,
                None if gradients is None else Gradients(to),
                None if dl_dinput is None else dl_dinput[rows],
                overwrite=gradients is not None,
            )  # fmt: skip
            place = self._losses[rank * n_own + k :].address
            write_mean_loss(1, found.sums.address, found.n, 1.0 / found.n_elements, place)
            for waiting in range(level if gradients is not None else 0):
                other = self._sums[waiting * self._pitch :].address
                add.over(n, to.address, other, n)
        self._tell_all(gradients is not None)
        add_up.over(1, self._losses.address, self._losses.size, 1, 1)
        if gradients is not None:
            add_up.over(n, self._rows.address, self._comm.size, self._pitch, n)
            if overwrite:
                to = gradients.flat.address
                self._device.copy(to, self._rows.address, n * FLOAT_BYTES)
            else:
                add.over(n, gradients.flat.address, self._rows.address, n)
        return LossSums(self._losses, 1, 1)

    def _tell_all(self, has_gradients: bool) -> None:
        if self._comm.size == 1:
            return
        each_has = {self._losses: self._comm.own_pieces}
        if has_gradients:
            each_has[self._rows] = self._pitch
        for array, n in each_has.items():
            self._collectives.fill(array, [n * k for k in range(self._comm.size + 1)])


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Samples `rows` of a batch, as a part of its mean."""
    arrays = {name: getattr(batch, name) for name in OF_SAMPLES}
    some = {name: None if each is None else each[rows] for name, each in arrays.items()}
    return dataclasses.replace(batch, **some)
