"""Outputs of a lane of a fused kernel: their places, their loss and its gradient.

A lane 4 g + t holds outputs of samples g and g + 8 of a fragment of 16: columns 2 t and 2 t + 1 of
every eight (see tiles/instructions.py).
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from numbanet.cuda.block.layout import FusedLayout
from numbanet.cuda.launch.threads import shuffle
from numbanet.cuda.memory.workspace import PassOptions
from numbanet.device import ONE, ZERO, belongs_to, device, local_array, nothing, opaque, unrolled
from numbanet.losses.base import AbstractLoss, ElementwiseLoss
from numbanet.storage.access import load
from numbanet.storage.halves import to_pairs
from numbanet.storage.views import ITEM_SIZES, VECTORS, float_vector

THREE, TWO = 3, 2


class Wanted(NamedTuple):
    """Arguments of the loss: addresses, and the factor of the outputs' gradients."""

    targets: int
    pdf: int
    given: int  # gradients from outside
    scale: float


QUAD = 4  # lanes that hold a row
SAMPLES = 2  # of a lane


@cache
def for_each_output(n_outputs: int, body):
    """Device function (lane, row, context): body(e, i, column, context) for outputs e.

    Those of a fragment that the lane holds and that are no padding: e is their place among its
    sums, i the number of the sample, if it is `row` for the fragment's first one.
    """
    n_sums = 8 * -(-n_outputs // 16)
    n_columns = n_outputs

    @device
    def at(e, lane, row, context):
        if 8 * (e // 4) < n_outputs:
            i = row + (lane >> TWO) + 8 * (e // 2 % 2)
            column = 8 * (e // 4) + e % 2 + TWO * (lane & THREE)
            if column < n_columns:
                body(e, i, column, context)

    @device
    def for_each_output(lane, row, context):
        unrolled(n_sums, at, lane, row, context)

    return for_each_output


@cache
def first_output(n_outputs: int, item_size: int = 4):
    """Device function (address, lane, row): where a lane's first output of a fragment is.

    The address is that of all outputs, `row` the number of the fragment's first sample. Others are
    `beyond`, at constant distances. Each has `item_size` bytes.
    """

    @device
    def first_output(address, lane, row):
        place = (row + (lane >> TWO)) * n_outputs + TWO * (lane & THREE)
        return opaque(np.uint64(address + np.uint64(place) * np.uint64(item_size)))

    return first_output


@cache
def beyond(n_outputs: int):
    """Device function e -> how many numbers there are from the lane's first output to e."""

    @device
    def beyond(e):
        return np.uint64(8 * (e // 2 % 2) * n_outputs + 8 * (e // 4) + e % 2)

    return beyond


# (x, t): the x of lane t of the four that hold a row; all lanes of a warp take part.
of_quad = shuffle(f"shfl.sync.idx.b32 $0, $1, $2, {(32 - QUAD) << 8 | 31}, -1;")


@cache
def loss_of_rows(loss: AbstractLoss, n_outputs: int, act, has_pdf: bool):
    """Device function (lane, i, n, sums, wanted, gradients, total): of whole rows of outputs.

    For a fragment whose first sample is i. The four lanes that hold a row give each other what they
    have of it. Each then has the whole row's loss, and keeps the gradients of its own outputs; the
    first one adds the loss to the total.
    """
    row = loss.row(n_outputs, has_pdf)
    n_sums = 8 * -(-n_outputs // 16)

    @device
    def collect(column, k, sums, prediction):
        mine = act(sums[4 * (column // 8) + 2 * k + column % 2])
        prediction[column] = of_quad(mine, np.uint32(column % 8 // 2))

    @device
    def keep(e, k, t, gradient, gradients):
        if e // 2 % 2 == k:
            for sender in range(QUAD):
                column = 8 * (e // 4) + 2 * sender + e % 2
                if column < n_outputs and t == sender:
                    gradients[e] = gradient[column]

    @device
    def of_row(k, lane, i, n, sums, wanted, gradients, total):
        prediction, gradient = local_array(n_outputs), local_array(n_outputs)
        unrolled(n_outputs, collect, k, sums, prediction)
        sample = i + (lane >> TWO) + 8 * k
        if sample < n:
            first = np.uint64(sample * n_outputs) * np.uint64(4)
            target = float_vector(np.uint64(wanted.targets + first), n_outputs)
            density = float_vector(np.uint64(wanted.pdf + first), n_outputs)
            value, t = row(prediction, target, density, gradient), lane & THREE
            if t == 0:
                total[0] += value
            unrolled(n_sums, keep, k, t, gradient, gradients)

    @device
    @belongs_to(f"{type(loss).__name__}.row")
    def loss_of_rows(lane, i, n, sums, wanted, gradients, total):
        unrolled(SAMPLES, of_row, lane, i, n, sums, wanted, gradients, total)

    return loss_of_rows


@cache
def output_gradient(
    layout: FusedLayout, precision: str, loss: AbstractLoss | None, options: PassOptions
):
    """Device function (lane, i, n, sums, wanted, words) -> sum of the loss.

    For a fragment whose first sample is i: the gradient of the outputs before their activation, as
    words of halves. All lanes of a warp take part.
    """
    network, has_pdf = layout.model.network, options.has_pdf
    has_external_dl_dy = options.external_dl_dy is not None
    external = options.external_dl_dy or "float32"
    n_outputs, n_sums = network.n_output_dims, layout.widths[-1] // 2
    output, convert = network.activations[1], to_pairs(precision, n_sums // 2)
    act, act_backward, from_input = output.forward, output.backward, output.from_input
    of_elements = isinstance(loss, ElementwiseLoss)
    of_rows = loss is not None and not of_elements
    value_and_gradient = loss.value_and_gradient if of_elements else nothing
    rows_loss = loss_of_rows(loss, n_outputs, act, has_pdf) if of_rows else nothing

    @device
    @belongs_to(f"{type(loss).__name__}.value_and_gradient")
    def element(e, i, column, context):
        n, sums, targets, pdf, given, scale, gradients, total = context
        if i < n:
            there, y, dl_dy = place(e), act(sums[e]), ZERO
            if of_elements:
                density = pdf[there] if has_pdf else ONE
                value, gradient = value_and_gradient(y, targets[there], density)
                total[0] += value
                dl_dy = scale * gradient
            if of_rows:
                dl_dy = scale * gradients[e]
            if has_external_dl_dy:
                dl_dy = scale * load(given, there)
            kept = sums[e] if from_input else y
            gradients[e] = act_backward(dl_dy, kept)

    each = for_each_output(n_outputs, element)
    first_of, place = first_output(n_outputs), beyond(n_outputs)
    first_of_external = first_output(n_outputs, ITEM_SIZES[external])
    external_vector = VECTORS[external]

    @device
    def clear(k, gradients):
        gradients[k] = ZERO

    @device
    def output_gradient(lane, i, n, sums, wanted, words):
        gradients, total = local_array(n_sums), local_array(1)
        total[0] = ZERO
        unrolled(n_sums, clear, gradients)
        rows_loss(lane, i, n, sums, wanted, gradients, total)
        targets, pdf, given = (
            float_vector(first_of(wanted.targets, lane, i), n),
            float_vector(first_of(wanted.pdf, lane, i), n),
            external_vector(first_of_external(wanted.given, lane, i), n),
        )
        each(lane, i, (n, sums, targets, pdf, given, wanted.scale, gradients, total))
        convert(gradients, words)
        return total[0]

    return output_gradient
