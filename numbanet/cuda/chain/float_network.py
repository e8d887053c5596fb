"""Kernels for all layers of a narrow network in float32: to the output, and back to the features.

A block has the parts of all weights in shared memory, and its warps take 32 samples at a time,
whose numbers stay in registers from one layer to the next. They write what the products of single
layers would leave in global memory, for the gradients of the weights.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from numbanet.activations import activation
from numbanet.cuda.chain.float_layers import Layer, split_weights, through
from numbanet.cuda.chain.float_rows import (
    WARP_SAMPLES,
    finish_backward,
    finish_forward,
    lane_of,
    load_rows,
    row,
)
from numbanet.cuda.chain.layers import rows_between
from numbanet.cuda.launch.threads import barrier, block_index, blocks_per_grid, thread_index
from numbanet.cuda.launch.types import Address, UInt
from numbanet.device import device, local_array, nothing
from numbanet.networks.base import AbstractMLP
from numbanet.storage.views import FLOAT_BYTES
from numbanet.tiles.instructions import shared_memory

N_THREADS = 256  # of a block, which has a multiprocessor for itself
MAX_REGISTERS = 255
MOST_WIDE = 64  # numbers of a sample: those of 32 and their sums fit the registers
NONE = activation("None")
SAMPLES = np.uint32(WARP_SAMPLES)
STEP = np.uint32(N_THREADS)  # samples that a block takes at a time
NOTHING, ONE, FIVE = np.uint32(0), np.uint32(1), np.uint32(5)


@dataclass(frozen=True)
class Pass:
    """Layers of a network as products, from its features to its output or backward.

    The hidden layers between the first and the last are alike, and follow each other everywhere.
    """

    network: AbstractMLP
    backward: bool = False

    @cached_property
    def layers(self) -> tuple[Layer, Layer, Layer]:
        """The first layer, each of those between, the last one; outputs without padding."""
        n_in, n_wide, n_out = *self.network.widths[:2], self.network.n_output_dims
        shapes = (n_wide, n_in), (n_wide, n_wide), (n_out, n_wide)
        if self.backward:
            return tuple(Layer(n_in, n_out, 1, n_in) for n_out, n_in in shapes)
        return tuple(Layer(n_out, n_in, n_in, 1) for n_out, n_in in shapes)

    @property
    def n_between(self) -> int:
        return self.network.n_hidden_layers - 1

    @cached_property
    def starts(self) -> tuple[int, int, int]:
        """First parameter of each of `layers`."""
        sizes = [rows * columns for rows, columns in self.network.shapes]
        return 0, sizes[0], sum(sizes[:-1])

    @cached_property
    def offsets(self) -> tuple[int, int, int]:
        """Offset of each of `layers` in shared memory."""
        first, middle, _ = (layer.n_bytes for layer in self.layers)
        return 0, first, first + self.n_between * middle

    @property
    def n_numbers(self) -> int:
        """Numbers of a lane, in registers: those of the widest values."""
        return 8 * max(each for layer in self.layers for each in (layer.n_tiles, layer.n_steps))

    @property
    def shared_bytes(self) -> int:
        return self.offsets[-1] + self.layers[-1].n_bytes


def takes_whole(network: AbstractMLP, max_shared_bytes: int) -> bool:
    """Whether a network's layers fit one kernel: the one place that decides it."""
    widths = *network.widths[:-1], network.n_output_dims
    return (
        network.n_hidden_layers > 0
        and max(widths) <= MOST_WIDE
        and max(Pass(network, back).shared_bytes for back in (False, True)) <= max_shared_bytes
    )


@cache
def places(plan: Pass):
    """Device functions (address, j) of a matrix and a bias, and (j) of parts, an offset.

    They are of layer 1 + j, between the first and the last.
    """
    biases = plan.network.bias_starts or plan.starts
    matrix, bias = np.uint64(FLOAT_BYTES * plan.starts[1]), np.uint64(FLOAT_BYTES * biases[1])
    n_wide, first = plan.network.n_neurons, np.uint32(plan.offsets[1])
    matrix_bytes, bias_bytes = np.uint64(FLOAT_BYTES * n_wide**2), np.uint64(FLOAT_BYTES * n_wide)
    parts_bytes = np.uint32(plan.layers[1].n_bytes)

    @device
    def weights(params, j):
        j = np.uint64(j)
        return (
            np.uint64(params + (matrix + j * matrix_bytes)),
            np.uint64(params + (bias + j * bias_bytes)),
        )

    @device
    def parts(j):
        return np.uint32(first + np.uint32(j) * parts_bytes)

    return weights, parts


def ends(plan: Pass):
    """Offsets in bytes of the matrix and the bias of the first and the last layer."""
    biases = plan.network.bias_starts or plan.starts
    return [
        tuple(np.uint64(FLOAT_BYTES * starts[k]) for starts in (plan.starts, biases))
        for k in (0, -1)
    ]


@cache
def split_all(plan: Pass):
    """Device function (params, shared): write the parts of all weights to shared memory."""
    split_first, split_middle, split_last = (split_weights(layer) for layer in plan.layers)
    weights_of, parts_of = places(plan)
    n_between = np.uint32(plan.n_between)
    last, to_last = ends(plan)[1][0], np.uint32(plan.offsets[-1])

    @device
    def split_all(params, shared):
        split_first(params, shared)
        j = NOTHING
        while j < n_between:
            split_middle(weights_of(params, j)[0], np.uint32(shared + parts_of(j)))
            j = np.uint32(j + ONE)
        split_last(np.uint64(params + last), np.uint32(shared + to_last))

    return split_all


def kernel_of_groups(plan: Pass, work):
    """Kernel (params, memory, n, pitch) that calls `work` for the samples of each warp.

    work(params, (memory, i, n, pitch)): i is the warp's first sample. The memory is that of Layers.
    """
    split_weights = split_all(plan)

    def of_groups(params: Address, memory: Address, n: UInt, pitch: UInt):
        split_weights(params, shared_memory())
        barrier()
        warp = thread_index() >> FIVE
        i = np.uint32(np.uint32(warp * blocks_per_grid() + block_index()) * SAMPLES)
        while i < n:
            work(params, (memory, i, n, pitch))
            i = np.uint32(i + np.uint32(STEP * blocks_per_grid()))

    return of_groups


def reload_hidden(plan: Pass):
    """Device function (work, k, x): load a hidden layer's rows from k on, if there is a loop.

    They are the lane's own. Kept in registers from one round to the next, some 100 would spill.
    """
    if plan.n_between < 2:
        return nothing
    load = load_rows(plan.network.n_neurons)

    @device
    def reload_hidden(work, k, x):
        lane = lane_of(work)
        load(lane, row(lane, k), x)

    return reload_hidden


@cache
def forward_kernel(network: AbstractMLP):
    """Kernel (params, memory, n, pitch): all values, from those of the features."""
    plan, rows = Pass(network), rows_between(network, keeps_gradients=True)
    (first_layer, middle_layer, last_layer), (hidden, output) = plan.layers, network.activations
    through_first, through_middle, through_last = (
        through(layer, finish_forward(act, layer.n_results), network.bias)
        for layer, act in ((first_layer, hidden), (middle_layer, hidden), (last_layer, output))
    )
    load_features, n_numbers = load_rows(first_layer.depth), plan.n_numbers
    (weights_of, parts_of), reload = places(plan), reload_hidden(plan)
    (_, first_bias), (last_matrix, last_bias) = ends(plan)
    n_wide, n_between = np.uint32(network.n_neurons), np.uint32(plan.n_between)
    features, values, last_values, outputs = (np.uint32(rows.values[k]) for k in (0, 1, -2, -1))
    first_kept, middle_kept, last_kept = (np.uint32(rows.kept[k]) for k in (0, 1, -1))
    to_last = np.uint32(plan.offsets[-1])

    @device
    def forward(params, work):
        x = local_array(n_numbers)
        lane = lane_of(work)
        load_features(lane, row(lane, features), x)
        weights = params, np.uint64(params + first_bias)
        through_first(weights, NOTHING, work, (features, values, first_kept), x)
        j = NOTHING
        while j < n_between:
            k = np.uint32(j * n_wide)
            reload(work, values + k, x)
            rows = values + k, values + k + n_wide, middle_kept + k
            through_middle(weights_of(params, j), parts_of(j), work, rows, x)
            j = np.uint32(j + ONE)
        reload(work, last_values, x)
        weights = np.uint64(params + last_matrix), np.uint64(params + last_bias)
        through_last(weights, to_last, work, (last_values, outputs, last_kept), x)

    kernel = kernel_of_groups(plan, forward)
    kernel.__qualname__ = f"network_forward_{network.n_neurons}_{hidden.name}_float32"
    return kernel


@cache
def backward_kernel(network: AbstractMLP, to_features: bool):
    """Kernel (params, memory, n, pitch): all gradients of values, from those of the output.

    These have been through the output's activation. The features' ones are left out if not asked
    for.
    """
    plan, rows = Pass(network, backward=True), rows_between(network, keeps_gradients=True)
    (first_layer, middle_layer, last_layer), hidden = plan.layers, network.activations[0]
    through_middle, through_last = (
        through(layer, finish_backward(hidden, layer.n_results))
        for layer in (middle_layer, last_layer)
    )
    finish_first = finish_backward(NONE, first_layer.n_results)
    through_first = through(first_layer, finish_first) if to_features else nothing
    load_outputs, n_numbers = load_rows(last_layer.depth), plan.n_numbers
    (weights_of, parts_of), reload = places(plan), reload_hidden(plan)
    last_matrix, to_last = ends(plan)[1][0], np.uint32(plan.offsets[-1])
    n_wide, n_between = np.uint32(network.n_neurons), np.uint32(plan.n_between)
    features, gradients, last_gradients, outputs = (
        np.uint32(rows.dl_dvalues[k]) for k in (0, 1, -2, -1)
    )
    kept, last_kept = np.uint32(rows.kept[0]), np.uint32(rows.kept[-2])

    @device
    def backward(params, work):
        x = local_array(n_numbers)
        lane = lane_of(work)
        load_outputs(lane, row(lane, outputs), x)
        weights = np.uint64(params + last_matrix)
        rows = outputs, last_gradients, last_kept
        through_last((weights, weights), to_last, work, rows, x)
        j = n_between
        while j > NOTHING:
            j = np.uint32(j - ONE)
            k = np.uint32(j * n_wide)
            reload(work, gradients + k + n_wide, x)
            rows = gradients + k + n_wide, gradients + k, kept + k
            through_middle(weights_of(params, j), parts_of(j), work, rows, x)
        reload(work, gradients, x)
        through_first((params, params), NOTHING, work, (gradients, features, features), x)

    kernel = kernel_of_groups(plan, backward)
    what = f"{network.n_neurons}_{hidden.name}_float32"
    kernel.__qualname__ = f"network_backward_{'to_features_' if to_features else ''}{what}"
    return kernel
