"""CPU kernels for a whole model: inference, and everything a training step needs.

Work is divided the same way whatever the number of threads, so results do not depend on it.
A slab is the number of rows whose encoded features are kept for the encoding's backward pass; each
slab is divided into at most N_GROUPS groups of whole tiles, and each group adds up the gradient of
the network's weights on its own.
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.mlp import tile_backward, tile_forward, tile_hidden, tile_output
from numbanet.cpu.tile_buffers import (
    TILE,
    BufferLayout,
    copy_kept,
    pack_weights,
    unpack_gradients,
)
from numbanet.cpu.training_plan import N_GROUPS, TrainingPlan
from numbanet.device import ZERO, device, nothing
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import spoil_rows
from numbanet.encodings.parts import with_numbers

ONE_FEATURE = ((0, 1),)  # a NaN there spoils all outputs of a network
INFERENCE_ROWS = 1024  # of a group, or fewer where that makes fewer than N_GROUPS groups


@cache
def encode(encoding: AbstractEncoding):
    """Device function (xs, first, last, params, ys, row): features of rows of xs to ys[row:]."""
    encode_rows, spoil = encoding.forward_rows, spoil_rows(encoding.n_dims, ONE_FEATURE)

    @device
    def encode(xs, first, last, params, ys, row):
        encode_rows(xs, first, last, params, ys, row, 0)
        spoil(xs, first, last, ys, row)

    return encode


@cache
def inference_kernel(model: EncodedNetwork, keeps_features: bool = False) -> ParallelKernel:
    """(xs, params, numbers, ys, kept): evaluate the model for every row.

    The model is a kernel_key, and `numbers` are those of the model that it stands for. What may be
    kept for a Batch are features, or hidden layers with them, as copy_kept has them.
    """
    network, layout, n_encoded = model.network, BufferLayout(model.network), model.n_encoded
    n_outputs, n_network_params = network.n_output_dims, network.n_params
    n_weights, scratch_size = layout.n_weights, layout.gradients
    params_of = with_numbers(model.encoding.reads_numbers)
    output, output_pitch = layout.output, layout.pitches[-1]
    encode_tile = encode(model.encoding)
    pack, forward = pack_weights(model.network), tile_forward(layout)
    keep = copy_kept(layout, n_encoded, into_tile=False)

    @device
    def infer(xs, first, last, encoding_params, transposed, ys, kept):
        encoded = np.empty((TILE, n_encoded), np.float32)
        flat = encoded.reshape(-1)
        scratch = np.empty(scratch_size, np.float32)
        for row in range(first, last, TILE):
            n_rows = min(TILE, last - row)
            encode_tile(xs, row, row + n_rows, encoding_params, encoded, 0)
            forward(flat, 0, n_rows, transposed, scratch)
            if keeps_features:
                keep(flat, scratch, n_rows, kept, row)
            for i in range(n_rows):
                for k in range(n_outputs):
                    ys[row + i, k] = scratch[output + i * output_pitch + k]

    def inference(xs, params, numbers, ys, kept):
        n = xs.shape[0]
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        n_tiles = (n + TILE - 1) // TILE
        group_rows = min(INFERENCE_ROWS, (n_tiles + N_GROUPS - 1) // N_GROUPS * TILE)
        for group in prange((n + group_rows - 1) // max(group_rows, 1)):
            first = np.intp(group) * group_rows  # prange counts unsigned
            last = min(n, first + group_rows)
            encoding_params = params_of(params[n_network_params:], numbers)
            infer(xs, first, last, encoding_params, transposed, ys, kept)

    return ParallelKernel(inference)


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
def keep_gradients(partitions: tuple[tuple[int, int], ...]):
    """Device function (encoded, n_rows, kept, n_kept, row): a tile's gradients to kept[row:].

    One partition after the other, so that each reads its own gradients as one stream. Copies of a
    width that is constant become vectors.
    """
    n_partitions, widths = len(partitions), {stop - start for start, stop in partitions}
    equal_width = np.intp(widths.pop() if len(widths) == 1 else 0)

    @device
    def keep_gradients(encoded, n_rows, kept, n_kept, row):
        for partition in range(n_partitions):
            start, stop = partitions[partition]
            width = equal_width or stop - start
            target = n_kept * start + row * width
            for i in range(n_rows):
                for k in range(width):
                    kept[target + i * width + k] = encoded[i, start + k]

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
    backward_input, keep = encoding.backward_input, keep_gradients(encoding.partition_columns)

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
                keep(encoded, n_rows, kept, n_kept, kept_row + row - first)
        return total

    return train_rows


@cache
def training_kernel(plan: TrainingPlan) -> ParallelKernel:
    """Kernel for a forward and backward pass over a batch.

    (xs, features, targets, pdf, external_dl_dy, params, numbers, group_rows, encoded_rows, scale,
    gradients, dl_dxs, losses): adds to gradients, writes dl_dxs, adds the sum of the loss of each
    group to losses. What a plan does not need is passed as an empty array. `numbers` are those of
    the model that the plan's stands for; encoded_rows are as TrainingPlan has them.
    """
    encoding, network = plan.model.encoding, plan.model.network
    layout, n_encoded, n_network_params = (
        BufferLayout(network), plan.model.n_encoded, network.n_params,
    )  # fmt: skip
    n_weights, slab_rows = layout.n_weights, plan.slab_rows
    param_gradients, encoding_gradients = plan.param_gradients, plan.encoding_gradients
    partitions = encoding.partition_columns
    n_partitions = len(partitions)
    params_of = with_numbers(encoding.reads_numbers)
    pack, unpack = pack_weights(network), unpack_gradients(network)
    train, encodes_first = train_rows(plan, layout), plan.encodes_first
    encode_chunk = encode(encoding) if encodes_first else nothing
    backward_params_rows = encoding.backward_params_rows if encoding_gradients else nothing

    def training(
        xs, features, targets, pdf, external_dl_dy, params, numbers, group_rows, encoded_rows,
        scale, gradients, dl_dxs, losses,
    ):  # fmt: skip
        n = xs.shape[0]
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        partials = np.zeros((losses.shape[0], n_weights if param_gradients else 0), np.float32)
        n_kept = min(n, slab_rows) if encoding_gradients else 0
        kept = np.empty(n_kept * n_encoded, np.float32)
        encoded = np.empty((min(n, slab_rows) if encodes_first else 0, n_encoded), np.float32)
        for slab in range(0, n, slab_rows):
            slab_end = min(n, slab + slab_rows)
            if encodes_first:
                for chunk in prange((slab_end - slab + encoded_rows - 1) // encoded_rows):
                    first = slab + np.intp(chunk) * encoded_rows  # prange counts unsigned
                    last = min(slab_end, first + encoded_rows)
                    encoding_params = params_of(params[n_network_params:], numbers)
                    encode_chunk(xs, first, last, encoding_params, encoded, first - slab)
            for group in prange((slab_end - slab + group_rows - 1) // group_rows):
                first = slab + np.intp(group) * group_rows  # prange counts unsigned
                rows = first, min(slab_end, first + group_rows)
                own, feature_row = (encoded, first - slab) if encodes_first else (features, first)
                samples = xs, own, targets, pdf, external_dl_dy
                encoding_params = params_of(params[n_network_params:], numbers)
                keeping = feature_row, kept, n_kept, first - slab
                outputs = partials[group], dl_dxs
                losses[group] += train(
                    rows, samples, encoding_params, scale, (weights, transposed), keeping, outputs
                )
            if encoding_gradients:
                for partition in prange(n_partitions):
                    start, stop = partitions[partition]
                    dl_dys = kept[n_kept * start : n_kept * stop].reshape(n_kept, stop - start)
                    backward_params_rows(
                        np.intp(partition), xs[slab:slab_end],
                        params_of(params[n_network_params:], numbers), dl_dys,
                        gradients[n_network_params:],
                    )  # fmt: skip
        if param_gradients:
            unpack(partials, losses.shape[0], gradients)

    return ParallelKernel(training)


@device
def no_loss(n_rows, predictions, targets, pdf, dl_dpredictions):
    return ZERO
