"""Passes over a batch in equal pieces, whose gradients are added in pairs, alike on all ranks.

A piece is evaluated in the same way wherever that is done, and sums are made in the same order, by
one rank or by several.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from numbanet.communicator import Communicator
from numbanet.engine import Batch, Engine, Gradients, LossSums
from numbanet.losses.base import AbstractLoss

OF_SAMPLES = "inputs", "targets", "pdf", "external_dl_dy", "features"


@dataclass(frozen=True)
class PieceByPiece:
    """Forward and backward pass of an engine, whose gradients are those of all ranks."""

    engine: Engine
    comm: Communicator

    def forward_backward(
        self, batch: Batch, params: np.ndarray, loss: AbstractLoss | None = None,
        gradients: Gradients | None = None, dl_dinput: np.ndarray | None = None, *,
        overwrite: bool = False,
    ) -> LossSums:  # fmt: skip
        def added_up(first, n):
            """Loss and gradients of n pieces."""
            if n > 1:
                (loss_a, a), (loss_b, b) = added_up(first, n // 2), added_up(first + n // 2, n // 2)
                return loss_a + loss_b, a if a is None else np.add(a, b, out=a)
            rows = slice(first * size, (first + 1) * size)
            own = None if gradients is None else Gradients(np.empty_like(gradients.flat))
            found = self.engine.forward_backward(
                rows_of(batch, rows), params, loss, own,
                None if dl_dinput is None else dl_dinput[rows], overwrite=own is not None,
            )  # fmt: skip
            return found.sums.sum(), None if own is None else own.flat

        n_pieces = self.comm.own_pieces
        size = len(batch) // n_pieces
        value, of_batch = added_up(0, n_pieces)
        if gradients is not None:
            total = self.comm.reduce(of_batch)
            gradients.flat[...] = total if overwrite else gradients.flat + total
        n_elements = batch.n_elements(self.engine.n_output_dims)
        return LossSums(np.array([value]), 1, n_elements)


def rows_of(batch: Batch, rows: slice) -> Batch:
    """Samples `rows` of a batch, as a part of its mean."""
    arrays = {name: getattr(batch, name) for name in OF_SAMPLES}
    some = {name: None if each is None else each[rows] for name, each in arrays.items()}
    return dataclasses.replace(batch, **some)
