"""A multi-layer perceptron on the CPU, for a tile of samples at a time.

A tile is a row-major array [samples, width]. With activations and weights stored this way, the
forward pass, the gradient of the input and the gradient of the weights are all products whose
columns are contiguous, so one micro-kernel serves the three of them and nothing is transposed but
the weights, once per call.

A tile of jets holds samples in its first rows, and below these as many rows for each of their
derivatives. All go through the same matrices, so only the biases, which belong to the samples, and
the activations know of it.
"""

from functools import cache

import numpy as np

from numbanet.cpu.micro_kernel import matrix_product
from numbanet.cpu.tile_activations import (
    activate,
    activate_backward,
    activate_jets,
    activate_jets_backward,
)
from numbanet.cpu.tile_buffers import BufferLayout
from numbanet.device import device, nothing


def activation_of(layout: BufferLayout, which: int):
    """Device function that applies the activation of hidden layers (0) or outputs (1) to a tile."""
    activation = layout.network.activations[which]
    return activate(activation) if layout.jet is None else activate_jets(activation, layout.jet)


@cache
def add_bias(layout: BufferLayout):
    """Device function (tile, n_rows, pitch, transposed, bias): add a bias to the rows of samples.

    A tile is a tuple of an array and where it starts in it.
    """
    n_columns = layout.n_columns

    @device
    def add_bias(tile, n_rows, pitch, transposed, bias):
        array, start = tile
        for i in range(n_rows // n_columns):
            row = start + i * pitch
            for k in range(pitch):
                array[row + k] += transposed[bias + k]

    return add_bias if layout.network.bias else nothing


@cache
def bias_backward(layout: BufferLayout, weight_gradients: bool):
    """Device function (dl_dy, n_rows, pitch, dl_dweights, bias): add the gradient of a bias."""
    n_columns = layout.n_columns

    @device
    def bias_backward(dl_dy, n_rows, pitch, dl_dweights, bias):
        array, start = dl_dy
        for i in range(n_rows // n_columns):
            row = start + i * pitch
            for k in range(pitch):
                dl_dweights[bias + k] += array[row + k]

    return bias_backward if layout.network.bias and weight_gradients else nothing


@cache
def tile_hidden(layout: BufferLayout):
    """Device function (x, x_start, n_rows, transposed, scratch): the hidden layers of a tile."""
    network = layout.network
    n_hidden_layers = network.n_hidden_layers
    n_inputs, n_neurons = layout.widths[0], layout.widths[1]
    input_pitch, hidden_pitch = layout.pitches[0], layout.pitches[1]
    second_weights, layer_size = layout.weight_offsets[1], layout.layer_size
    first_bias, add = layout.bias_offsets[0], add_bias(layout)
    keeps_inputs = layout.keeps_inputs
    inputs = n_hidden_layers * layer_size  # where hidden layers before the activation are kept
    product = matrix_product()
    activate_hidden = activation_of(layout, 0)

    @device
    def tile_hidden(x, x_start, n_rows, transposed, scratch):
        for k in range(n_hidden_layers):
            here = k * layer_size
            before = inputs + here if keeps_inputs else here
            c = (scratch, before, hidden_pitch)
            if k == 0:
                a = (x, x_start, input_pitch, 1)
                b = (transposed, 0, hidden_pitch)
                product(n_rows, hidden_pitch, n_inputs, a, b, c, False)
            else:
                a = (scratch, here - layer_size, hidden_pitch, 1)
                start = second_weights + (k - 1) * hidden_pitch * hidden_pitch
                b = (transposed, start, hidden_pitch)
                product(n_rows, hidden_pitch, n_neurons, a, b, c, False)
            bias = first_bias + k * hidden_pitch
            add((scratch, before), n_rows, hidden_pitch, transposed, bias)
            activate_hidden(scratch, before, here, n_rows * hidden_pitch)

    return tile_hidden


@cache
def tile_output(layout: BufferLayout):
    """Device function as tile_hidden, after it: outputs go to layout.output."""
    network = layout.network
    n_hidden_layers, n_last = network.n_hidden_layers, layout.widths[-2]
    pitches, last_weights = layout.pitches, layout.weight_offsets[-2]
    last_pitch, output_pitch = pitches[-2], pitches[-1]
    layer_size, output, output_size = layout.layer_size, layout.output, layout.output_size
    bias, add = layout.bias_offsets[-2], add_bias(layout)
    keeps_output_input = layout.keeps_output_input
    product = matrix_product()
    activate_output = activation_of(layout, 1)

    @device
    def tile_output(x, x_start, n_rows, transposed, scratch):
        before = output + output_size if keeps_output_input else output
        b = (transposed, last_weights, output_pitch)
        c = (scratch, before, output_pitch)
        if n_hidden_layers == 0:
            a = (x, x_start, last_pitch, 1)
        else:
            a = (scratch, (n_hidden_layers - 1) * layer_size, last_pitch, 1)
        product(n_rows, output_pitch, n_last, a, b, c, False)
        add((scratch, before), n_rows, output_pitch, transposed, bias)
        activate_output(scratch, before, output, n_rows * output_pitch)

    return tile_output


@cache
def tile_forward(layout: BufferLayout):
    """Device function (x, x_start, n_rows, transposed, scratch): outputs go to layout.output."""
    hidden, output = tile_hidden(layout), tile_output(layout)

    @device
    def tile_forward(x, x_start, n_rows, transposed, scratch):
        hidden(x, x_start, n_rows, transposed, scratch)
        output(x, x_start, n_rows, transposed, scratch)

    return tile_forward


@cache
def matrix_backward(weight_gradients: bool):
    """Device function (sizes, y, x, weights, dl_dweights, start, target, wants_target): one matrix.

    sizes = (n_rows, n_outputs, output_pitch, input_pitch); y, x and target are tuples of an array
    and where the gradient of the outputs, the inputs, and the gradient of the inputs start in it;
    weights and dl_dweights both start at `start` of their arrays.
    """
    product = matrix_product()

    @device
    def matrix_backward(sizes, y, x, weights, dl_dweights, start, target, wants_target):
        n_rows, n_outputs, output_pitch, input_pitch = sizes
        y_array, y_start = y
        x_array, x_start = x
        if weight_gradients:
            a = (y_array, y_start, 1, output_pitch)
            b = (x_array, x_start, input_pitch)
            c = (dl_dweights, start, input_pitch)
            product(n_outputs, input_pitch, n_rows, a, b, c, True)
        if wants_target:
            a = (y_array, y_start, output_pitch, 1)
            b = (weights, start, input_pitch)
            c = (target[0], target[1], input_pitch)
            product(n_rows, input_pitch, n_outputs, a, b, c, False)

    return matrix_backward


@cache
def tile_backward(layout: BufferLayout, weight_gradients: bool, input_gradients: bool):
    """Device function (x, x_start, n_rows, weights, scratch, dl_dweights).

    The gradient of the output is expected at layout.output + 2 * layout.output_size; that of its
    padding is zero, and so are those of the weights there. The gradient of the weights is added to
    dl_dweights; the gradient of the input replaces x.
    """
    network = layout.network
    n_hidden_layers, n_neurons, n_outputs = (
        network.n_hidden_layers, layout.widths[1], np.int64(network.n_output_dims),
    )  # fmt: skip
    pitches, offsets = layout.pitches, layout.weight_offsets
    input_pitch, hidden_pitch, output_pitch = pitches[0], pitches[1], pitches[-1]
    last_pitch, last_weights, second_weights = pitches[-2], offsets[-2], offsets[1]
    layer_size, output, output_size = layout.layer_size, layout.output, layout.output_size
    inputs = n_hidden_layers * layer_size if layout.keeps_inputs else 0
    output_before = output + (output_size if layout.keeps_output_input else 0)
    gradients = layout.gradients
    hidden_size = hidden_pitch * hidden_pitch
    first_bias, output_bias = layout.bias_offsets[0], layout.bias_offsets[-2]
    of_bias = bias_backward(layout, weight_gradients)
    through_matrix = matrix_backward(weight_gradients)
    hidden_backward, output_backward = (
        activate_backward(each) if layout.jet is None else activate_jets_backward(each, layout.jet)
        for each in network.activations
    )

    @device
    def tile_backward(x, x_start, n_rows, weights, scratch, dl_dweights):
        dl_dy = (scratch, output + 2 * output_size)
        output_backward(scratch, dl_dy[1], output_before, output, n_rows * output_pitch)
        of_bias(dl_dy, n_rows, output_pitch, dl_dweights, output_bias)
        sizes = (n_rows, n_outputs, output_pitch, last_pitch)
        if n_hidden_layers == 0:
            inner = (x, x_start)
            through_matrix(sizes, dl_dy, inner, weights, dl_dweights, 0, inner, input_gradients)
            return
        source = (n_hidden_layers - 1) * layer_size
        here = gradients
        through_matrix(
            sizes, dl_dy, (scratch, source), weights, dl_dweights, last_weights,
            (scratch, here), True,
        )  # fmt: skip
        hidden_backward(scratch, here, inputs + source, source, n_rows * hidden_pitch)
        sizes = (n_rows, n_neurons, hidden_pitch, hidden_pitch)
        for k in range(n_hidden_layers - 1, 0, -1):
            bias = first_bias + k * hidden_pitch
            of_bias((scratch, here), n_rows, hidden_pitch, dl_dweights, bias)
            there = 2 * gradients + layer_size - here
            source -= layer_size
            matrix = second_weights + (k - 1) * hidden_size
            through_matrix(
                sizes, (scratch, here), (scratch, source), weights, dl_dweights, matrix,
                (scratch, there), True,
            )  # fmt: skip
            hidden_backward(scratch, there, inputs + source, source, n_rows * hidden_pitch)
            here = there
        sizes = (n_rows, n_neurons, hidden_pitch, input_pitch)
        of_bias((scratch, here), n_rows, hidden_pitch, dl_dweights, first_bias)
        outer = (x, x_start)
        through_matrix(
            sizes, (scratch, here), outer, weights, dl_dweights, 0, outer, input_gradients
        )

    return tile_backward
