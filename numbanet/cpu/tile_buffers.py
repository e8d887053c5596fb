"""Layout of a network in the buffers of the CPU's kernels, and copies to and from them."""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate

import numpy as np

from numbanet.cpu.launch import separate
from numbanet.device import device
from numbanet.jets import Jet
from numbanet.networks.base import ALIGNMENT, AbstractMLP, next_multiple

TILE = 128


@dataclass(frozen=True)
class BufferLayout:
    """Layout of a network's weights and activations in the flat buffers of the CPU kernels.

    Widths are padded to a multiple of 16, which every vector length divides. Rows of weights are
    padded likewise, because the micro-kernel reads and writes whole blocks. Biases follow all
    matrices, in the buffer of transposed weights and in that of gradients. Sizes are NumPy's
    integers: for each of Python's, Numba would compile what they are passed to anew.
    """

    network: AbstractMLP
    jet: Jet | None = None  # None for values alone

    @cached_property
    def widths(self) -> tuple[np.int64, ...]:
        return tuple(map(np.int64, self.network.widths))

    @cached_property
    def pitches(self) -> tuple[np.int64, ...]:
        return tuple(np.int64(next_multiple(width, ALIGNMENT)) for width in self.network.widths)

    @cached_property
    def weight_offsets(self) -> tuple[int, ...]:
        """Start of each matrix in a padded weight buffer, and the end of the last one."""
        offsets = [np.int64(0)]
        for rows, columns in zip(self.pitches[1:], self.pitches[:-1], strict=True):
            offsets.append(offsets[-1] + rows * columns)
        return tuple(offsets)

    @cached_property
    def bias_offsets(self) -> tuple[int, ...]:
        """Start of each layer's bias in a padded weight buffer, and its total size at the end."""
        return tuple(accumulate(self.pitches[1:], initial=self.weight_offsets[-1]))

    @property
    def n_weights(self) -> int:
        """Floats of a padded weight buffer."""
        return self.bias_offsets[-1] if self.network.bias else self.weight_offsets[-1]

    @property
    def n_columns(self) -> int:
        """Rows of a tile for each of its samples."""
        return 1 if self.jet is None else self.jet.n_columns

    @property
    def layer_size(self) -> int:
        """Floats of the activations of one hidden layer."""
        return TILE * self.pitches[1]

    @property
    def keeps_inputs(self) -> bool:
        """Whether the hidden layers are kept before their activation too.

        It is differentiated there, or jets are.
        """
        return self.jet is not None or self.network.activations[0].from_input

    @property
    def keeps_output_input(self) -> bool:
        """Whether the outputs are kept before their activation too."""
        return self.jet is not None or self.network.activations[1].from_input

    @property
    def n_stored_layers(self) -> int:
        return self.network.n_hidden_layers * (2 if self.keeps_inputs else 1)

    @property
    def n_kept(self) -> int:
        """Floats per sample of what `tile_backward` reads of the hidden layers."""
        return self.n_stored_layers * self.pitches[1]

    @property
    def output(self) -> int:
        """Start of the output in the scratch buffer; its input form, then its gradient follow."""
        return self.n_stored_layers * self.layer_size

    @property
    def output_size(self) -> int:
        return TILE * self.pitches[-1]

    @property
    def gradients(self) -> int:
        """Start of two hidden layers' worth of gradients."""
        return self.output + 3 * self.output_size

    @property
    def scratch_size(self) -> int:
        return self.gradients + 2 * self.layer_size


@cache
def pack_weights(network: AbstractMLP):
    """Separate function (params, weights, transposed): copy the matrices into padded buffers.

    Both buffers are zero where no weight belongs; biases go with the transposed ones.
    """
    layout = BufferLayout(network)
    shapes, pitches, offsets = network.shapes, layout.pitches, layout.weight_offsets
    n_matrices, n_biases = len(shapes), len(network.bias_starts)
    bias_offsets = layout.bias_offsets

    @separate
    def pack_weights(params, weights, transposed):
        weights[:] = 0
        transposed[:] = 0
        source = 0
        for k in range(n_matrices):
            n_rows, n_columns = shapes[k]
            row_pitch, column_pitch, offset = pitches[k], pitches[k + 1], offsets[k]
            for i in range(n_rows):
                for j in range(n_columns):
                    weight = params[source + j]
                    weights[offset + i * row_pitch + j] = weight
                    transposed[offset + j * column_pitch + i] = weight
                source += n_columns
        for k in range(n_biases):
            for i in range(shapes[k][0]):
                transposed[bias_offsets[k] + i] = params[source + i]
            source += shapes[k][0]

    return pack_weights


@cache
def unpack_gradients(network: AbstractMLP):
    """Separate function (partials, n_groups, gradients): add up the groups' padded gradients.

    Groups are added in their order, so the result does not depend on the number of threads.
    """
    layout = BufferLayout(network)
    shapes, pitches, offsets = network.shapes, layout.pitches, layout.weight_offsets
    n_matrices, n_biases = len(shapes), len(network.bias_starts)
    bias_offsets = layout.bias_offsets

    @separate
    def unpack_gradients(partials, n_groups, gradients):
        total = partials[0]
        for group in range(1, n_groups):
            partial = partials[group]
            for i in range(total.shape[0]):
                total[i] += partial[i]
        target = 0
        for k in range(n_matrices):
            n_rows, n_columns = shapes[k]
            for i in range(n_rows):
                row = offsets[k] + i * pitches[k]
                for j in range(n_columns):
                    gradients[target + j] += total[row + j]
                target += n_columns
        for k in range(n_biases):
            for i in range(shapes[k][0]):
                gradients[target + i] += total[bias_offsets[k] + i]
            target += shapes[k][0]

    return unpack_gradients


@device
def copy(source, first, target, start, n):
    for i in range(n):  # a slice would be copied number by number; see docs/design/cpu_engine.md
        target[np.uintp(start + i)] = source[np.uintp(first + i)]


@cache
def copy_kept(layout: BufferLayout, n_encoded: int, into_tile: bool):
    """Device function (tile, scratch, n_rows, kept, row): what the backward pass reads of a tile.

    `kept` is [n, n_encoded + layout.n_kept], in which the rows of a tile, from `row` on, are one
    piece: their features, then one hidden layer after the other. From or into the tile's features
    and scratch buffer. Or it is [n, n_encoded], of features alone.
    """
    width, n_layers = n_encoded + layout.n_kept, layout.n_stored_layers
    hidden_pitch, layer_size = layout.pitches[1], layout.layer_size

    @device
    def copy_part(tile, tile_start, kept, start, n):
        if into_tile:
            copy(kept, start, tile, tile_start, n)
        else:
            copy(tile, tile_start, kept, start, n)

    @device
    def copy_kept(tile, scratch, n_rows, kept, row):
        flat = kept.reshape(-1)
        if kept.shape[1] == n_encoded:
            copy_part(tile, 0, flat, row * n_encoded, n_rows * n_encoded)
            return
        start, n = row * width, n_rows * hidden_pitch
        copy_part(tile, 0, flat, start, n_rows * n_encoded)
        start += n_rows * n_encoded
        for layer in range(n_layers):
            copy_part(scratch, layer * layer_size, flat, start + layer * n, n)

    return copy_kept
