"""CUDA kernels on float32 in rows of samples: copies of columns, and the loss."""

from functools import cache

from numbanet.cuda.launch.threads import n_threads, thread_index, thread_number, warp_sum
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ONE, ZERO, belongs_to, local_array
from numbanet.losses.base import AbstractLoss
from numbanet.storage.views import float_vector

WARP_MASK = 31
LOG2_WARP = 5


@cache
def copy_columns_kernel(adds: bool):
    """(from, pitch, to, pitch, n_rows, n_columns): copy columns, or add them to the target.

    One thread for each number; addresses are those of the first columns, pitches in numbers.
    """

    def copy_columns(
        pfrom: Address, from_pitch: UInt, pto: Address, to_pitch: UInt, n_rows: UInt,
        n_columns: UInt,
    ):  # fmt: skip
        source, to, k = float_vector(pfrom, n_rows), float_vector(pto, n_rows), thread_number()
        if k < n_rows * n_columns:
            row = k // n_columns
            column = k - row * n_columns
            value, place = source[row * from_pitch + column], row * to_pitch + column
            to[place] = to[place] + value if adds else value

    return copy_columns


@cache
def scaled_rows_kernel(adds: bool):
    """(from, to, scale, offset, n_rows, n_offset, n, pitch): to = scale from + offset, in rows.

    Or that is added. The offset is that of the first n_offset of the n numbers of a row.
    """

    def scaled_rows(
        pfrom: Address, pto: Address, scale: Float, offset: Float, n_rows: UInt, n_offset: UInt,
        n: UInt, pitch: UInt,
    ):  # fmt: skip
        k = thread_number()
        column = k % pitch
        if (k < n_rows * pitch) & (column < n):
            source, to = float_vector(pfrom, n_rows * pitch), float_vector(pto, n_rows * pitch)
            value = scale * source[k] + (offset if column < n_offset else ZERO)
            to[k] = to[k] + value if adds else value

    return scaled_rows


@cache
def row_loss_kernel(loss: AbstractLoss, n_outputs: int, has_pdf: bool):
    """(y, n, targets, pdf, scale, dl_dy, sums): scale times the gradient, and sums of the loss.

    Each warp writes the sum of the loss of its samples to its place among the sums.
    """
    row = loss.row(n_outputs, has_pdf)

    @belongs_to(f"{type(loss).__name__}.row")
    def row_loss(
        py: Address, n: UInt, ptargets: Address, ppdf: Address, scale: Float, pdl_dy: Address,
        psums: Address,
    ):  # fmt: skip
        y, targets, pdf, dl_dy, sums = (
            float_vector(py, n), float_vector(ptargets, n), float_vector(ppdf, n),
            float_vector(pdl_dy, n), float_vector(psums, n),
        )  # fmt: skip
        prediction, target = local_array(n_outputs), local_array(n_outputs)
        density, gradient = local_array(n_outputs), local_array(n_outputs)
        i, total = thread_number(), ZERO
        while i < n:
            for k in range(n_outputs):
                there = i * n_outputs + k
                prediction[k], target[k] = y[there], targets[there]
                density[k] = pdf[there] if has_pdf else ONE
            total += row(prediction, target, density, gradient)
            for k in range(n_outputs):
                dl_dy[i * n_outputs + k] = scale * gradient[k]
            i += n_threads()
        total = warp_sum(total)
        if (thread_index() & WARP_MASK) == 0:
            sums[thread_number() >> LOG2_WARP] = total

    return row_loss
