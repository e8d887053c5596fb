"""The CPU's kernels for derivatives of outputs by inputs, and for gradients through these.

Samples become jets: see jets.py. The features of n samples are an array [n_columns, n, n_features].
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.mlp import tile_backward, tile_forward
from numbanet.cpu.tile_buffers import TILE, BufferLayout, pack_weights, unpack_gradients
from numbanet.device import ZERO, device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.finite_inputs import is_nan, spoil, zero_or_nan
from numbanet.encodings.parts import with_numbers
from numbanet.jets import Jet
from numbanet.networks.base import AbstractMLP

ROWS = 256  # samples of a group


@cache
def encode_kernel(encoding: AbstractEncoding, jet: Jet, dims: tuple[int, ...]) -> ParallelKernel:
    """(xs, params, numbers, features): the jets of the features; the encoding is a kernel_key.

    It reads the inputs `dims` of those that derivatives are by.
    """
    add_partial, n_columns = encoding.add_partial, jet.n_columns
    partials = jet.partials_through(dims)
    params_of, check = with_numbers(encoding.reads_numbers), zero_or_nan(encoding.n_dims)

    @device
    def encode_sample(x, params, features, i):
        for column in range(n_columns):
            features[column, i] = ZERO
        for column, a, b in partials:
            add_partial(x, params, a, b, features[column, i])
        zero = check(x)
        if is_nan(zero):
            for column in range(n_columns):
                spoil(zero, features[column, i])

    def encode_jets(xs, params, numbers, features):
        n = xs.shape[0]
        for group in prange((n + ROWS - 1) // ROWS):
            own_params = params_of(params, numbers)
            for i in range(group * ROWS, min(n, (group + 1) * ROWS)):
                encode_sample(xs[i], own_params, features, i)

    return ParallelKernel(encode_jets)


@cache
def scatter_kernel(encoding: AbstractEncoding, jet: Jet, dims: tuple[int, ...]) -> ParallelKernel:
    """(xs, params, numbers, dl_dfeatures, dl_dparams): add the gradient of the parameters."""
    backward_rows, columns = encoding.partial_backward_params_rows, encoding.partition_columns
    partials, n_partitions = jet.partials_through(dims), len(columns)
    params_of = with_numbers(encoding.reads_numbers)

    def scatter_jets(xs, params, numbers, dl_dfeatures, dl_dparams):
        for partition in prange(n_partitions):
            start, stop = columns[partition]
            own_params = params_of(params, numbers)
            for column, a, b in partials:
                features = dl_dfeatures[column, :, start:stop]
                backward_rows(partition, xs, own_params, (a, b), features, dl_dparams)

    return ParallelKernel(scatter_jets)


@cache
def tile_of_samples(n_encoded: int, jet: Jet):
    """Device functions (features, row, n_rows, tile) that fill a tile with jets, and empty it."""
    n_columns = jet.n_columns

    @device
    def fill(features, row, n_rows, tile):
        for column in range(n_columns):
            for i in range(n_rows):
                for k in range(n_encoded):
                    tile[column * n_rows + i, k] = features[column, row + i, k]

    @device
    def empty(features, row, n_rows, tile):
        for column in range(n_columns):
            for i in range(n_rows):
                for k in range(n_encoded):
                    features[column, row + i, k] = tile[column * n_rows + i, k]

    return fill, empty


@cache
def network_kernel(network: AbstractMLP, jet: Jet) -> ParallelKernel:
    """(features, params, group_rows, values, firsts, seconds): the derivatives of the outputs.

    They are [n, n_outputs], [n, n_outputs, n_dims] and [n, n_outputs, number of second ones].
    """
    layout, n_encoded = BufferLayout(network, jet), network.n_input_dims
    n_outputs, n_dims, n_columns = network.n_output_dims, jet.n_dims, jet.n_columns
    n_weights, scratch_size, n_tile = layout.n_weights, layout.gradients, TILE // n_columns
    output, pitch, seconds_of = layout.output, layout.pitches[-1], columns_of_seconds(jet)
    pack, forward = pack_weights(network), tile_forward(layout)
    fill, _ = tile_of_samples(n_encoded, jet)

    @device
    def write_outputs(row, n_rows, scratch, outputs):
        values, firsts, seconds = outputs
        step = n_rows * pitch
        for i in range(n_rows):
            for k in range(n_outputs):
                place = output + i * pitch + k
                values[row + i, k] = scratch[place]
                for d in range(n_dims):
                    firsts[row + i, k, d] = scratch[place + (1 + d) * step]
                for j in range(seconds.shape[2]):
                    seconds[row + i, k, j] = scratch[place + seconds_of[j] * step]

    @device
    def differentiate_rows(first, last, features, transposed, outputs):
        scratch = np.empty(scratch_size, np.float32)
        tile = np.empty((TILE, n_encoded), np.float32)
        flat = tile.reshape(-1)
        for row in range(first, last, n_tile):
            n_rows = min(n_tile, last - row)
            fill(features, row, n_rows, tile)
            forward(flat, 0, n_columns * n_rows, transposed, scratch)
            write_outputs(row, n_rows, scratch, outputs)

    def differentiate(features, params, group_rows, values, firsts, seconds):
        n = values.shape[0]
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        for group in prange((n + group_rows - 1) // group_rows):
            first = np.intp(group) * group_rows  # prange counts unsigned
            outputs = values, firsts, seconds
            differentiate_rows(first, min(n, first + group_rows), features, transposed, outputs)

    return ParallelKernel(differentiate)


def columns_of_seconds(jet: Jet) -> tuple[int, ...]:
    """Column of each second derivative, and a 0, so that the tuple is never empty."""
    return (*jet.second_columns, 0)


@cache
def network_backward_kernel(network: AbstractMLP, jet: Jet) -> ParallelKernel:
    """(features, params, group_rows, dl_dvalues, dl_dfirsts, dl_dseconds, gradients).

    Arrays are as in network_kernel; those that are empty count as zeros. Replaces the features by
    their gradients, and adds to those of the network's parameters.
    """
    layout, n_encoded = BufferLayout(network, jet), network.n_input_dims
    n_outputs, n_dims, n_columns = network.n_output_dims, jet.n_dims, jet.n_columns
    n_weights, scratch_size, n_tile = layout.n_weights, layout.scratch_size, TILE // n_columns
    pitch, dl_doutput = layout.pitches[-1], layout.output + 2 * layout.output_size
    seconds_of = columns_of_seconds(jet)
    pack, unpack = pack_weights(network), unpack_gradients(network)
    forward, backward = tile_forward(layout), tile_backward(layout, True, True)
    fill, empty = tile_of_samples(n_encoded, jet)

    @device
    def output_gradient(row, n_rows, gradients, scratch):
        dl_dvalues, dl_dfirsts, dl_dseconds = gradients
        step = n_rows * pitch
        scratch[dl_doutput : dl_doutput + n_columns * step] = ZERO
        for i in range(n_rows):
            for k in range(n_outputs):
                place = dl_doutput + i * pitch + k
                if dl_dvalues.shape[0] > 0:
                    scratch[place] = dl_dvalues[row + i, k]
                if dl_dfirsts.shape[0] > 0:
                    for d in range(n_dims):
                        scratch[place + (1 + d) * step] = dl_dfirsts[row + i, k, d]
                if dl_dseconds.shape[0] > 0:
                    for j in range(dl_dseconds.shape[2]):
                        scratch[place + seconds_of[j] * step] += dl_dseconds[row + i, k, j]

    @device
    def differentiate_rows(rows, features, matrices, of_outputs, dl_dweights):
        (first, last), (weights, transposed) = rows, matrices
        scratch = np.empty(scratch_size, np.float32)
        tile = np.empty((TILE, n_encoded), np.float32)
        flat = tile.reshape(-1)
        for row in range(first, last, n_tile):
            n_rows = min(n_tile, last - row)
            fill(features, row, n_rows, tile)
            forward(flat, 0, n_columns * n_rows, transposed, scratch)
            output_gradient(row, n_rows, of_outputs, scratch)
            backward(flat, 0, n_columns * n_rows, weights, scratch, dl_dweights)
            empty(features, row, n_rows, tile)

    def differentiate_backward(
        features, params, group_rows, dl_dvalues, dl_dfirsts, dl_dseconds, gradients
    ):
        n = features.shape[1]
        n_groups = (n + group_rows - 1) // group_rows
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        partials = np.zeros((n_groups, n_weights), np.float32)
        for group in prange(n_groups):
            first = np.intp(group) * group_rows  # prange counts unsigned
            rows, matrices = (first, min(n, first + group_rows)), (weights, transposed)
            of_outputs = dl_dvalues, dl_dfirsts, dl_dseconds
            differentiate_rows(rows, features, matrices, of_outputs, partials[group])
        unpack(partials, n_groups, gradients)

    return ParallelKernel(differentiate_backward)
