"""CUDA kernels between a network's outputs and their gradient: the loss, and conversions.

Outputs and their gradients are feature-major in the precision of the network, element (i, k) at
k * pitch + i; what the user sees is float32 in rows of samples. One thread per sample, where
nothing else is said.
"""

from functools import cache, partial

from numbanet.cuda.launch.threads import n_threads, thread_index, thread_number, warp_sum
from numbanet.cuda.launch.types import Address, Float, UInt
from numbanet.device import ONE, ZERO, belongs_to, device, local_array
from numbanet.losses.base import AbstractLoss, ElementwiseLoss
from numbanet.storage.access import load, store
from numbanet.storage.views import VECTORS, float_vector

WARP_MASK = 31
LOG2_WARP = 5
AT_ONCE = 8  # outputs of a sample that a thread asks memory for


@cache
def loss_of_elements(loss: ElementwiseLoss, n_outputs: int, has_pdf: bool, n: int):
    """`loss_row` for n outputs from `first` on, which is an additional first argument.

    All are loaded before anything is stored, so that they wait for memory together.
    """
    value_and_gradient = loss.value_and_gradient

    @device
    @belongs_to(f"{type(loss).__name__}.value_and_gradient")
    def loss_of_elements(first, y, i, pitch, targets, pdf, scale, dl_dy):
        predicted, wanted, density = local_array(n), local_array(n), local_array(n)
        for j in range(n):
            here = (first + j) * pitch + i
            there = i * n_outputs + (first + j)
            predicted[j], wanted[j] = load(y, here), targets[there]
            density[j] = pdf[there] if has_pdf else ONE
        total = ZERO
        for j in range(n):
            here = (first + j) * pitch + i
            value, gradient = value_and_gradient(predicted[j], wanted[j], density[j])
            store(dl_dy, here, scale * gradient)
            total += value
        return total

    return loss_of_elements


@cache
def loss_row(loss: AbstractLoss, n_outputs: int, has_pdf: bool):
    """Device function (y, i, pitch, targets, pdf, scale, dl_dy) -> the loss of sample i.

    Writes scale times the gradient.
    """
    if isinstance(loss, ElementwiseLoss):
        part = partial(loss_of_elements, loss, n_outputs, has_pdf)
        whole, rest = part(AT_ONCE), part(n_outputs % AT_ONCE)
        n_whole = n_outputs // AT_ONCE * AT_ONCE

        @device
        def elementwise(y, i, pitch, targets, pdf, scale, dl_dy):
            total = ZERO
            for first in range(0, n_whole, AT_ONCE):
                total += whole(first, y, i, pitch, targets, pdf, scale, dl_dy)
            return total + rest(n_whole, y, i, pitch, targets, pdf, scale, dl_dy)

        return elementwise
    row = loss.row(n_outputs, has_pdf)

    @device
    @belongs_to(f"{type(loss).__name__}.row")
    def rowwise(y, i, pitch, targets, pdf, scale, dl_dy):
        prediction, target = local_array(n_outputs), local_array(n_outputs)
        density, gradient = local_array(n_outputs), local_array(n_outputs)
        for k in range(n_outputs):
            there = i * n_outputs + k
            prediction[k] = load(y, k * pitch + i)
            target[k] = targets[there]
            density[k] = pdf[there] if has_pdf else ONE
        total = row(prediction, target, density, gradient)
        for k in range(n_outputs):
            store(dl_dy, k * pitch + i, scale * gradient[k])
        return total

    return rowwise


@cache
def loss_kernel(loss: AbstractLoss, n_outputs: int, has_pdf: bool, precision: str):
    """(y, n, pitch, targets, pdf, dl_dy, scale, partial_sums): the gradient and the loss.

    Each warp writes the sum of the loss of its samples to its place among the partial sums, so
    that the total does not depend on the order in which warps run.
    """
    vector, row = VECTORS[precision], loss_row(loss, n_outputs, has_pdf)

    def loss_and_gradient(
        py: Address, n: UInt, pitch: UInt, ptargets: Address, ppdf: Address, pdl_dy: Address,
        scale: Float, psums: Address,
    ):  # fmt: skip
        y, dl_dy = vector(py, n), vector(pdl_dy, n)
        targets, pdf, sums = (
            float_vector(ptargets, n),
            float_vector(ppdf, n),
            float_vector(psums, n),
        )
        i, total = thread_number(), ZERO
        while i < n:
            total += row(y, i, pitch, targets, pdf, scale, dl_dy)
            i += n_threads()
        total = warp_sum(total)
        if (thread_index() & WARP_MASK) == 0:
            sums[thread_number() >> LOG2_WARP] = total

    loss_and_gradient.__qualname__ = f"{type(loss).__name__}_loss"
    return loss_and_gradient


@cache
def external_kernel(n_outputs: int, precision: str, storage: str):
    """(dl_dy of the user, n, pitch, scale, dl_dy): scale times the user's gradient, converted."""
    vector, rows = VECTORS[precision], VECTORS[storage]

    def external_gradient(
        pexternal_dl_dy: Address, n: UInt, pitch: UInt, scale: Float, pdl_dy: Address,
    ):  # fmt: skip
        external_dl_dy, dl_dy = rows(pexternal_dl_dy, n), vector(pdl_dy, n)
        i = thread_number()
        if i < n:
            for k in range(n_outputs):
                given = scale * load(external_dl_dy, i * n_outputs + k)
                store(dl_dy, k * pitch + i, given)

    return external_gradient


@cache
def outputs_kernel(n_outputs: int, precision: str, storage: str = "float32"):
    """(y, n, pitch, outputs): outputs converted to rows of samples; one thread for each."""
    vector, rows, width = VECTORS[precision], VECTORS[storage], n_outputs

    def outputs_in_rows(py: Address, n: UInt, pitch: UInt, poutputs: Address):
        y, outputs = vector(py, n), rows(poutputs, n)
        i = thread_number()
        if i < n * width:
            row = i // width
            column = i - row * width
            store(outputs, i, load(y, column * pitch + row))

    return outputs_in_rows
