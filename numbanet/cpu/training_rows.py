"""Forward and backward pass of a group of rows on the CPU, tile by tile."""

from functools import cache

import numpy as np

from numbanet.cpu.encode import encode
from numbanet.cpu.mlp import tile_backward, tile_hidden, tile_output
from numbanet.cpu.tile_buffers import TILE, BufferLayout, copy_kept
from numbanet.cpu.training_plan import TrainingPlan
from numbanet.device import ZERO, copy_vector, device

MOST_IN_VECTOR = 16  # features of a partition that are copied at once


@cache
def output_gradient(plan: TrainingPlan, layout: BufferLayout):
    """Device function (row, n_rows, samples, scale, scratch, packed) -> sum of the loss of a tile.

    Writes the gradient of the outputs to the scratch memory. Packed are the outputs and their
    gradients without padding; samples are as train_rows has them, targets and pdf flat.
    """
    loss, n_outputs = plan.loss, plan.model.network.n_output_dims
    output, pitch = layout.output, layout.pitches[-1]
    dl_doutput = layout.output + 2 * layout.output_size
    has_loss, has_pdf = loss is not None, plan.has_pdf
    has_external_dl_dy = plan.has_external_dl_dy
    loss_rows = loss.rows(n_outputs, has_pdf) if has_loss else no_loss

    @device
    def output_gradient(row, n_rows, samples, scale, scratch, packed):
        _, _, targets, pdf, external_dl_dy = samples
        total = ZERO
        if has_loss:
            first, n = row * n_outputs, n_rows * n_outputs
            predictions, gradients = packed[0, :n], packed[1, :n]
            for i in range(n_rows):
                for k in range(n_outputs):
                    predictions[i * n_outputs + k] = scratch[output + i * pitch + k]
            density = pdf[first : first + n] if has_pdf else predictions
            wanted = targets[first : first + n]
            total = loss_rows(n_rows, predictions, wanted, density, gradients)
        for i in range(n_rows):
            start = dl_doutput + i * pitch
            for k in range(n_outputs):
                if has_external_dl_dy:
                    scratch[start + k] = external_dl_dy[row + i, k]
                else:
                    scratch[start + k] = scale * packed[1, i * n_outputs + k]
            for k in range(n_outputs, pitch):
                scratch[start + k] = 0
        return total

    return output_gradient


@cache
def copy_features(width: int):
    """Device function (target, i, source, j, n): copy n features, or `width` if that is not 0."""

    @device
    def copy_width(target, i, source, j, n):
        copy_vector(target, i, source, j, width)

    @device
    def copy_any(target, i, source, j, n):
        for k in range(n):
            target[np.uintp(i + k)] = source[np.uintp(j + k)]

    return copy_width if 0 < width <= MOST_IN_VECTOR else copy_any


@cache
def keep_gradients(partitions: tuple[tuple[int, int], ...], n_encoded: int):
    """Device function (encoded, n_rows, kept, n_kept, row): a tile's gradients to kept[row:].

    One partition after the other, so that each reads its own gradients as one stream.
    """
    n_partitions, widths = len(partitions), {stop - start for start, stop in partitions}
    copy = copy_features(widths.pop() if len(widths) == 1 else 0)

    @device
    def keep_gradients(encoded, n_rows, kept, n_kept, row):
        for partition in range(n_partitions):
            start, stop = partitions[partition]
            width = stop - start
            target = n_kept * start + row * width
            for i in range(n_rows):
                copy(kept, target + i * width, encoded, i * n_encoded + start, width)

    return keep_gradients


@cache
def train_rows(plan: TrainingPlan, layout: BufferLayout):
    """Device function (rows, samples, params, scale, matrices, keeping, outputs) -> sum of losses.

    For rows = (first, last) of the samples (xs, features, targets, pdf, external_dl_dy). Params are
    the encoding's, matrices the network's (weights, transposed). Keeping are the first row of the
    features, the gradients of features and their number, and the place of the first row there;
    outputs the gradients of the matrices and of the inputs.
    """
    model = plan.model
    encoding, n_encoded, n_outputs = model.encoding, model.n_encoded, model.network.n_output_dims
    scratch_size, is_encoded = layout.scratch_size, plan.encoded or plan.encodes_first
    encoding_gradients, input_gradients = plan.encoding_gradients, plan.input_gradients
    encode_tile = encode(encoding)
    hidden, output = tile_hidden(layout), tile_output(layout)
    gradient = output_gradient(plan, layout)
    needs_outputs, restore = plan.needs_outputs, copy_kept(layout, n_encoded, into_tile=True)
    backward = tile_backward(layout, plan.param_gradients, encoding_gradients or input_gradients)
    backward_input, keep = (
        encoding.backward_input,
        keep_gradients(encoding.partition_columns, n_encoded),
    )

    @device
    def train_rows(rows, samples, params, scale, matrices, keeping, outputs):
        first, last = rows
        xs, features, targets, pdf, external_dl_dy = samples
        weights, transposed = matrices
        feature_row, kept, n_kept, kept_row = keeping
        dl_dweights, dl_dxs = outputs
        scratch = np.empty(scratch_size, np.float32)
        encoded = np.empty((TILE, n_encoded), np.float32)
        packed = np.empty((2, TILE * n_outputs), np.float32)
        flat = encoded.reshape(-1)
        flat_samples = xs, features, targets.reshape(-1), pdf.reshape(-1), external_dl_dy
        total = np.float64(0)
        for row in range(first, last, TILE):
            n_rows = min(TILE, last - row)
            is_activated = False
            if is_encoded:
                is_activated = features.shape[1] > n_encoded
                restore(flat, scratch, n_rows, features, feature_row + row - first)
            else:
                encode_tile(xs, row, row + n_rows, params, encoded, 0)
            if not is_activated:
                hidden(flat, 0, n_rows, transposed, scratch)
            if needs_outputs:
                output(flat, 0, n_rows, transposed, scratch)
            total += gradient(row, n_rows, flat_samples, scale, scratch, packed)
            backward(flat, 0, n_rows, weights, scratch, dl_dweights)
            if input_gradients:
                for i in range(n_rows):
                    backward_input(xs[row + i], params, encoded[i], dl_dxs[row + i])
            if encoding_gradients:
                keep(flat, n_rows, kept, n_kept, kept_row + row - first)
        return total

    return train_rows


@device
def no_loss(n_rows, predictions, targets, pdf, dl_dpredictions):
    return ZERO
