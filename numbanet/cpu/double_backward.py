"""CPU kernel for second derivatives of a network: backward through values and tangents.

The gradient of the inputs, multiplied by a direction, is the gradient of the outputs multiplied by
the tangents of the outputs along that direction. So its derivatives are those of the tangents.
"""

from functools import cache

import numpy as np
from numba import prange

from numbanet.cpu.launch import ParallelKernel
from numbanet.cpu.mlp import tile_backward, tile_forward
from numbanet.cpu.tile_activations import TANGENT
from numbanet.cpu.tile_buffers import TILE, BufferLayout, pack_weights, unpack_gradients
from numbanet.device import ZERO, device
from numbanet.networks.base import AbstractMLP

HALF_TILE = TILE // 2


@cache
def double_backward_kernel(network: AbstractMLP, param_gradients: bool) -> ParallelKernel:
    """(features, tangents, params, dl_dtangents, group_rows, gradients, output_tangents).

    Takes the features' tangents and the gradient of the outputs' tangents, and replaces features
    and tangents by their gradients; adds to the gradients of the network's parameters.
    """
    layout = BufferLayout(network, TANGENT)
    n_encoded, n_outputs = network.n_input_dims, network.n_output_dims
    n_weights, scratch_size = layout.n_weights, layout.scratch_size
    output, pitch = layout.output, layout.pitches[-1]
    dl_doutput = output + 2 * layout.output_size
    pack, unpack = pack_weights(network), unpack_gradients(network)
    forward, backward = tile_forward(layout), tile_backward(layout, param_gradients, True)

    @device
    def output_gradient(row, n_rows, dl_dtangents, output_tangents, scratch):
        for i in range(n_rows):
            value, tangent = i * pitch, (n_rows + i) * pitch
            for k in range(pitch):
                scratch[dl_doutput + value + k] = ZERO
                scratch[dl_doutput + tangent + k] = ZERO
            for k in range(n_outputs):
                output_tangents[row + i, k] = scratch[output + tangent + k]
                scratch[dl_doutput + tangent + k] = dl_dtangents[row + i, k]

    @device
    def differentiate_rows(rows, inputs, dl_dtangents, matrices, dl_dweights, output_tangents):
        (first, last), (features, tangents), (weights, transposed) = rows, inputs, matrices
        scratch = np.empty(scratch_size, np.float32)
        both = np.empty((TILE, n_encoded), np.float32)
        flat = both.reshape(-1)
        for row in range(first, last, HALF_TILE):
            n_rows = min(HALF_TILE, last - row)
            for i in range(n_rows):
                for k in range(n_encoded):
                    both[i, k] = features[row + i, k]
                    both[n_rows + i, k] = tangents[row + i, k]
            forward(flat, 0, 2 * n_rows, transposed, scratch)
            output_gradient(row, n_rows, dl_dtangents, output_tangents, scratch)
            backward(flat, 0, 2 * n_rows, weights, scratch, dl_dweights)
            for i in range(n_rows):
                for k in range(n_encoded):
                    features[row + i, k] = both[i, k]
                    tangents[row + i, k] = both[n_rows + i, k]

    def double_backward(
        features, tangents, params, dl_dtangents, group_rows, gradients, output_tangents
    ):
        n = features.shape[0]
        n_groups = (n + group_rows - 1) // group_rows
        weights = np.empty(n_weights, np.float32)
        transposed = np.empty(n_weights, np.float32)
        pack(params, weights, transposed)
        partials = np.zeros((n_groups, n_weights if param_gradients else 0), np.float32)
        for group in prange(n_groups):
            first = np.intp(group) * group_rows  # prange counts unsigned
            rows, inputs = (first, min(n, first + group_rows)), (features, tangents)
            matrices = weights, transposed
            differentiate_rows(
                rows, inputs, dl_dtangents, matrices, partials[group], output_tangents
            )
        if param_gradients:
            unpack(partials, n_groups, gradients)

    return ParallelKernel(double_backward)
