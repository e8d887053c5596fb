"""CPU kernels for a whole model: inference, and everything a training step needs.

Work is divided the same way whatever the number of threads, so results do not depend on it.
A slab is the number of rows whose encoded features are kept for the encoding's backward pass; each
slab is divided into at most N_GROUPS groups of whole tiles, and each group adds up the gradient of
the network's weights on its own.
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.encode import encode
from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.mlp import tile_forward
from numbanet.cpu.tile_buffers import (
    TILE,
    BufferLayout,
    copy_kept,
    pack_weights,
    unpack_gradients,
)
from numbanet.cpu.training_plan import N_GROUPS, TrainingPlan
from numbanet.cpu.training_rows import train_rows
from numbanet.device import ZERO, device, nothing
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.parts import with_numbers

INFERENCE_ROWS = 1024  # of a group, or fewer where that makes fewer than N_GROUPS groups


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


@device
def clear_own(partition, param_ends, gradients):
    """Zero the gradients of one partition, where it is known which these are.

    The cache then has them when they are added to.
    """
    if param_ends.shape[0] > 0:
        first = param_ends[partition - 1] if partition > 0 else 0
        for i in range(np.uintp(first), np.uintp(param_ends[partition])):
            gradients[i] = ZERO


@cache
def training_kernel(plan: TrainingPlan) -> ParallelKernel:
    """Kernel for a forward and backward pass over a batch.

    (xs, features, targets, pdf, external_dl_dy, params, numbers, group_rows, encoded_rows, scale,
    param_ends, gradients, dl_dxs, losses): adds to gradients, but overwrites those of partitions
    that end at param_ends, unless these are none; writes dl_dxs, adds the sum of the loss of each
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
        scale, param_ends, gradients, dl_dxs, losses,
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
                    if slab == 0:
                        clear_own(np.intp(partition), param_ends, gradients[n_network_params:])
                    dl_dys = kept[n_kept * start : n_kept * stop].reshape(n_kept, stop - start)
                    backward_params_rows(
                        np.intp(partition), xs[slab:slab_end],
                        params_of(params[n_network_params:], numbers), dl_dys,
                        gradients[n_network_params:],
                    )  # fmt: skip
        if param_gradients:
            unpack(partials, losses.shape[0], gradients)

    return ParallelKernel(training)
