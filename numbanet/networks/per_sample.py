"""Network as device functions for one sample: each matrix with its bias and activation."""

import numpy as np

from numbanet.device import ZERO, belongs_to, device
from numbanet.networks.base import AbstractMLP
from numbanet.storage.access import load


def layers(network: AbstractMLP):
    """Device functions (weights, x, y), one for each matrix, without padded outputs."""
    first = 0
    for k, (fan_out, fan_in) in enumerate(network.shapes):
        n_out = network.n_output_dims if k == network.n_hidden_layers else fan_out
        start = starting_sum(network.bias_starts[k] if network.bias else None)
        yield layer(network.layer_activations[k], first, n_out, fan_in, start)
        first += fan_out * fan_in


def starting_sum(first_bias: int | None):
    """Device function (weights, i): what the sum of output i begins with, its bias or 0."""
    if first_bias is None:
        return no_bias

    @device
    def bias(weights, i):
        return load(weights, np.uint32(first_bias + i))

    return bias


@device
def no_bias(weights, i):
    return ZERO


def layer(activation, first: int, n_out: int, fan_in: int, start):
    """Device function (weights, x, y): y = activation(W x + b), W [n_out, fan_in] from `first`."""
    act = activation.forward

    @device
    @belongs_to(f"{activation.name}.forward")
    def layer(weights, x, y):
        for i in range(n_out):
            total = start(weights, i)
            for j in range(fan_in):
                total += load(weights, np.uint32(first + i * fan_in + j)) * x[j]
            y[i] = act(total)

    return layer
