"""CPU kernel for the loss of outputs in rows of samples."""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.engine import Batch, LossSums
from numbanet.losses.base import AbstractLoss

ROWS = 128  # of a group, which has a sum of its own


@cache
def row_loss_kernel(loss: AbstractLoss, n_outputs: int, has_pdf: bool) -> ParallelKernel:
    """(outputs, targets, pdf, scale, dl_dy, sums): write scale times the gradient, and the sums.

    All but the sums are 1-D; without has_pdf, pdf is not read.
    """
    loss_rows = loss.rows(n_outputs, has_pdf)

    def row_loss(outputs, targets, pdf, scale, dl_dy, sums):
        n = dl_dy.shape[0]
        for group in prange(sums.shape[0]):
            first = np.intp(group) * (ROWS * n_outputs)  # prange counts unsigned
            last = min(n, first + ROWS * n_outputs)
            gradients, density = dl_dy[first:last], pdf[first:last] if has_pdf else pdf
            sums[group] = loss_rows(
                (last - first) // n_outputs, outputs[first:last], targets[first:last], density,
                gradients,
            )  # fmt: skip
            for k in range(last - first):
                gradients[k] *= scale

    return ParallelKernel(row_loss)


def row_loss(
    loss: AbstractLoss | None, batch: Batch, outputs: np.ndarray, dl_dy: np.ndarray
) -> LossSums:
    """See AbstractTarget.row_loss."""
    n, n_outputs = outputs.shape
    n_elements = batch.n_elements(n_outputs)
    sums = np.zeros(-(-n // ROWS) if loss is not None else 0)
    if len(sums):
        flat = outputs.reshape(-1)
        pdf = flat if batch.pdf is None else batch.pdf.reshape(-1)
        kernel = row_loss_kernel(loss, n_outputs, batch.pdf is not None)
        scale = np.float32(1.0 / n_elements)
        kernel(flat, batch.targets.reshape(-1), pdf, scale, dl_dy.reshape(-1), sums)
    return LossSums(sums, len(sums), n_elements)
