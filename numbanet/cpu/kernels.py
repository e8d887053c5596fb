"""The CPU's kernels for a whole model: inference, and everything a training step needs.

Work is divided the same way whatever the number of threads, so results do not depend on it.
A slab is the number of rows whose encoded features are kept for the encoding's backward pass; each
slab is divided into at most N_GROUPS groups of whole tiles, and each group adds up the gradient of
the network's weights on its own.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.mlp import (
    TILE,
    BufferLayout,
    pack_weights,
    tile_backward,
    tile_forward,
    unpack_gradients,
)
from numbanet.device import ZERO, belongs_to, device, local_array
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.finite_inputs import spoil_rows
from numbanet.encodings.parts import with_numbers
from numbanet.kernel_cache import compile_cached
from numbanet.losses.base import AbstractLoss
from numbanet.networks.base import next_multiple
from numbanet.storage.views import columns_from

N_GROUPS = 32
SLAB_FLOATS = 1 << 20  # 4 MiB of features stay in the last-level cache until they are used again
ONE_FEATURE = ((0, 1),)  # a NaN there spoils all outputs of a network
INFERENCE_ROWS = 1024  # of a group, or fewer where that makes fewer than N_GROUPS groups


@dataclass(frozen=True)
class TrainingPlan:
    """What a training kernel computes: each combination is compiled on its own.

    The model is a kernel_key.
    """

    model: EncodedNetwork
    loss: AbstractLoss | None
    has_pdf: bool = False
    has_external_dl_dy: bool = False
    param_gradients: bool = True
    input_gradients: bool = False
    encoded: bool = False  # the features are given

    def group_rows(self, n: int, n_params: int) -> int:
        """Rows of a group for a batch of n, and a model with n_params parameters.

        There are fewer groups where their gradients would need much memory: more than the
        parameters and 160 bytes per sample.
        """
        n_affordable = (n_params + 40 * n) // BufferLayout(self.model.network).n_weights
        n_groups = min(N_GROUPS, max(2, n_affordable // 2 * 2))
        return max(TILE, next_multiple(-(-min(n, self.slab_rows) // n_groups), TILE))

    @property
    def slab_rows(self) -> int:
        if self.model.encoding.needs_whole_batch:
            return 1 << 40
        return max(TILE, SLAB_FLOATS // self.model.n_encoded // TILE * TILE)


@cache
def inference_kernel(model: EncodedNetwork, keeps_features: bool = False) -> ParallelKernel:
    """(xs, params, numbers, ys, features): evaluate the model for every row; features may be empty.

    The model is a kernel_key, and `numbers` are those of the model that it stands for.
    """
    layout, n_encoded, n_outputs = (
        BufferLayout(model.network),
        model.n_encoded,
        model.network.n_output_dims,
    )
    n_network_params, n_weights, scratch_size = (
        model.network.n_params, layout.n_weights, layout.gradients,
    )  # fmt: skip
    params_of = with_numbers(model.encoding.reads_numbers)
    output, output_pitch = layout.output, layout.pitches[-1]
    encode_rows, spoil = model.encoding.forward_rows, spoil_rows(model.encoding.n_dims, ONE_FEATURE)
    pack, forward = pack_weights(model.network), tile_forward(layout)

    @device
    def infer(xs, first, last, encoding_params, transposed, ys, features):
        encoded = np.empty((TILE, n_encoded), np.float32)
        flat = encoded.reshape(-1)
        scratch = np.empty(scratch_size, np.float32)
        for row in range(first, last, TILE):
            n_rows = min(TILE, last - row)
            encode_rows(xs, row, row + n_rows, encoding_params, encoded, 0, 0)
            spoil(xs, row, row + n_rows, encoded, 0)
            if keeps_features:
                features[row : row + n_rows] = encoded[:n_rows]
            forward(flat, 0, n_rows, transposed, scratch)
            for i in range(n_rows):
                for k in range(n_outputs):
                    ys[row + i, k] = scratch[output + i * output_pitch + k]

    def inference(xs, params, numbers, ys, features):
        n = xs.shape[0]
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        n_tiles = (n + TILE - 1) // TILE
        group_rows = min(INFERENCE_ROWS, (n_tiles + N_GROUPS - 1) // N_GROUPS * TILE)
        for group in prange((n + group_rows - 1) // max(group_rows, 1)):
            first = group * group_rows
            last = min(n, first + group_rows)
            encoding_params = params_of(params[n_network_params:], numbers)
            infer(xs, first, last, encoding_params, transposed, ys, features)

    return ParallelKernel(inference)


@cache
def training_kernel(plan: TrainingPlan) -> ParallelKernel:
    """One pass forward and backward over a batch.

    (xs, features, targets, pdf, external_dl_dy, params, numbers, group_rows, scale, gradients,
    dl_dxs, losses): adds to gradients, writes dl_dxs, adds the sum of the loss of each group to
    losses. What a plan does not need is passed as an empty array. `numbers` are those
    of the model that the plan's stands for.
    """
    model, loss = plan.model, plan.loss
    encoding, network, layout = model.encoding, model.network, BufferLayout(model.network)
    n_encoded, n_outputs = model.n_encoded, network.n_output_dims
    n_network_params, n_weights = network.n_params, layout.n_weights
    params_of = with_numbers(encoding.reads_numbers)
    scratch_size = layout.scratch_size
    output, output_pitch = layout.output, layout.pitches[-1]
    dl_doutput = layout.output + 2 * layout.output_size
    slab_rows, is_encoded = plan.slab_rows, plan.encoded
    param_gradients, input_gradients = plan.param_gradients, plan.input_gradients
    encoding_gradients = param_gradients and encoding.n_params > 0
    has_pdf, has_loss = plan.has_pdf, loss is not None
    has_external_dl_dy = plan.has_external_dl_dy
    partitions = encoding.partition_columns
    n_partitions = len(partitions)

    encode_rows, spoil = encoding.forward_rows, spoil_rows(encoding.n_dims, ONE_FEATURE)
    pack, unpack = pack_weights(network), unpack_gradients(network)
    forward = tile_forward(layout)
    backward = tile_backward(layout, param_gradients, encoding_gradients or input_gradients)
    loss_rows = loss.rows(n_outputs, has_pdf) if has_loss else no_loss
    backward_input = encoding.backward_input
    backward_params_rows = encoding.backward_params_rows if encoding_gradients else no_backward

    @device
    def output_gradient(row, n_rows, targets, pdf, external_dl_dy, scale, scratch, packed):
        total = ZERO
        if has_loss:
            first, n = row * n_outputs, n_rows * n_outputs
            predictions, gradients = packed[0, :n], packed[1, :n]
            for i in range(n_rows):
                for k in range(n_outputs):
                    predictions[i * n_outputs + k] = scratch[output + i * output_pitch + k]
            density = pdf[first : first + n] if has_pdf else predictions
            wanted = targets[first : first + n]
            total = loss_rows(n_rows, predictions, wanted, density, gradients)
        for i in range(n_rows):
            start = dl_doutput + i * output_pitch
            for k in range(n_outputs):
                if has_external_dl_dy:
                    scratch[start + k] = external_dl_dy[row + i, k]
                else:
                    scratch[start + k] = scale * packed[1, i * n_outputs + k]
            for k in range(n_outputs, output_pitch):
                scratch[start + k] = 0
        return total

    @device
    def keep_gradients(encoded, n_rows, kept, n_kept, row):
        # One partition after the other, so that each reads its own gradients as one stream.
        for partition in range(n_partitions):
            start, stop = partitions[partition]
            width = stop - start
            target = n_kept * start + row * width
            for i in range(n_rows):
                for k in range(width):
                    kept[target + i * width + k] = encoded[i, start + k]

    @device
    def train_rows(
        xs, features, targets, pdf, external_dl_dy, encoding_params, scale, first, last, weights,
        transposed, kept, n_kept, kept_row, dl_dweights, dl_dxs,
    ):  # fmt: skip
        scratch = np.empty(scratch_size, np.float32)
        encoded = np.empty((TILE, n_encoded), np.float32)
        packed = np.empty((2, TILE * n_outputs), np.float32)  # outputs and gradients, no padding
        flat = encoded.reshape(-1)
        flat_targets, flat_pdf = targets.reshape(-1), pdf.reshape(-1)
        total = np.float64(0)
        for row in range(first, last, TILE):
            n_rows = min(TILE, last - row)
            if is_encoded:
                encoded[:n_rows] = features[row : row + n_rows]
            else:
                encode_rows(xs, row, row + n_rows, encoding_params, encoded, 0, 0)
                spoil(xs, row, row + n_rows, encoded, 0)
            forward(flat, 0, n_rows, transposed, scratch)
            total += output_gradient(
                row, n_rows, flat_targets, flat_pdf, external_dl_dy, scale, scratch, packed
            )
            backward(flat, 0, n_rows, weights, scratch, dl_dweights)
            if input_gradients:
                for i in range(n_rows):
                    backward_input(xs[row + i], encoding_params, encoded[i], dl_dxs[row + i])
            if encoding_gradients:
                keep_gradients(encoded, n_rows, kept, n_kept, kept_row + row - first)
        return total

    def training(
        xs, features, targets, pdf, external_dl_dy, params, numbers, group_rows, scale, gradients,
        dl_dxs, losses,
    ):  # fmt: skip
        n = xs.shape[0]
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        partials = np.zeros((losses.shape[0], n_weights if param_gradients else 0), np.float32)
        n_kept = min(n, slab_rows) if encoding_gradients else 0
        kept = np.empty(n_kept * n_encoded, np.float32)
        for slab in range(0, n, slab_rows):
            slab_end = min(n, slab + slab_rows)
            for group in prange((slab_end - slab + group_rows - 1) // group_rows):
                first = slab + group * group_rows
                last = min(slab_end, first + group_rows)
                encoding_params = params_of(params[n_network_params:], numbers)
                losses[group] += train_rows(
                    xs, features, targets, pdf, external_dl_dy, encoding_params, scale, first, last,
                    weights, transposed, kept, n_kept, first - slab, partials[group], dl_dxs,
                )  # fmt: skip
            if encoding_gradients:
                for partition in prange(n_partitions):
                    start, stop = partitions[partition]
                    dl_dys = kept[n_kept * start : n_kept * stop].reshape(n_kept, stop - start)
                    backward_params_rows(
                        partition, xs[slab:slab_end],
                        params_of(params[n_network_params:], numbers), dl_dys,
                        gradients[n_network_params:],
                    )  # fmt: skip
        if param_gradients:
            unpack(partials, losses.shape[0], gradients)

    return ParallelKernel(training)


@device
def no_loss(n_rows, predictions, targets, pdf, dl_dpredictions):
    return ZERO


@device
def no_backward(partition, xs, params, dl_dys, dl_dparams):
    return


MAGNITUDE = np.int32(0x7FFFFFFF)


@compile_cached
def n_beyond(bits, limit):
    """How many float32 are NaN or at least `limit` in size; both are given as int32.

    Fast-math would drop a test on floats. One thread reads faster than a second one wakes up.
    """
    n = 0
    for i in range(bits.shape[0]):
        n += (bits[i] & MAGNITUDE) >= limit
    return n


@cache
def optimizer_kernel(optimizer, layout, prepares=True, steps=True) -> ParallelKernel:
    """One step on every parameter, or the half of it before or after `precondition`.

    (t, weights, gradients, state, matrices, hyperparams, scalars, begin, chunk): the state is that
    of the weights from `begin` on, which are stepped. With sums over matrices these are all.
    """
    n_state = optimizer.n_state
    n_scalars, has_sums = optimizer.n_scalars, prepares and optimizer.n_matrix_state > 0
    schedule, step = optimizer.schedule, optimizer.step(layout)
    summand, matrix_step = optimizer.summand(layout), optimizer.matrix_step(layout)
    ranges = optimizer.matrix_ranges(layout) if has_sums else ((0, 0),)
    n_matrices = len(ranges)

    @device
    def step_each(first, last, weights, gradients, state, scalars, matrices):
        own = local_array(n_scalars)  # which no store to the other arrays can change
        for k in range(n_scalars):
            own[k] = scalars[k]
        for i in range(first, last):
            u = np.uintp(i)
            weights[u] = step(u, weights[u], gradients[u], state, own, matrices)

    @belongs_to(f"{type(optimizer).__name__}.step")
    def optimize(t, weights, gradients, state, matrices, hyperparams, scalars, begin, chunk):
        if prepares:
            schedule(t, hyperparams, scalars)
        if has_sums:
            for m in range(n_matrices):
                first, last = ranges[m]
                sums = np.empty((last - first + chunk - 1) // chunk, np.float32)
                for c in prange(sums.shape[0]):
                    total = np.float32(0)
                    start = first + c * chunk
                    for i in range(start, min(last, start + chunk)):
                        u = np.uintp(i)  # an unsigned index is not tested for counting from the end
                        total += summand(u, weights[u], gradients[u], state, scalars)
                    sums[c] = total
                matrix_step(m, np.float32(sums.astype(np.float64).sum()), matrices, scalars)
        if steps:
            n, flat = state.shape[1], state.reshape(-1)
            for c in prange((n + chunk - 1) // chunk):
                mine = columns_from(flat, np.uint64(begin), n_state, n)
                first, last = begin + c * chunk, begin + min(n, (c + 1) * chunk)
                step_each(first, last, weights, gradients, mine, scalars, matrices)

    return ParallelKernel(optimize)
