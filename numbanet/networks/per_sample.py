"""Network as device functions for one sample: each matrix with its activation."""

import numpy as np

from numbanet.device import ZERO, belongs_to, device
from numbanet.networks.base import AbstractMLP
from numbanet.storage.access import load


def layers(network: AbstractMLP):
    """Device functions (weights, x, y), one for each matrix, without padded outputs."""
    first = 0
    for k, (fan_out, fan_in) in enumerate(network.shapes):
        n_out = network.n_output_dims if k == network.n_hidden_layers else fan_out
        yield layer(network.layer_activations[k], first, n_out, fan_in)
        first += fan_out * fan_in


def layer(activation, first: int, n_out: int, fan_in: int):
    """Device function (weights, x, y): y = activation(W x), W [n_out, fan_in] from `first` on."""
    act = activation.forward

    @device
    @belongs_to(f"{activation.name}.forward")
    def layer(weights, x, y):
        for i in range(n_out):
            total = ZERO
            for j in range(fan_in):
                total += load(weights, np.uint32(first + i * fan_in + j)) * x[j]
            y[i] = act(total)

    return layer
