"""A model evaluated by one lane alone, in float32: any model, precision and GPU.

Its values lie in the lane's local memory and every weight is read from global memory, so it is
many times slower than what the warps of a fused kernel do together.
"""

from functools import cache, reduce

import numpy as np

from numbanet.device import ZERO, belongs_to, device, local_array
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.networks.base import AbstractMLP
from numbanet.storage.access import load
from numbanet.storage.views import ITEM_SIZES, VECTORS


def layers(network: AbstractMLP):
    """Device functions (weights, x, y): each matrix with its activation, without padded outputs."""
    first = 0
    for k, (fan_out, fan_in) in enumerate(network.shapes):
        n_out = network.n_output_dims if k == network.n_hidden_layers else fan_out
        yield layer(network.layer_activations[k], first, n_out, fan_in)
        first += fan_out * fan_in


def layer(activation, first: int, n_out: int, fan_in: int):
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


@cache
def evaluate(model: EncodedNetwork, precision: str):
    """Device function (params, x, y): the outputs y of a sample x; params is an address."""
    network, encode, vector = model.network, model.encoding.forward, VECTORS[precision]
    n_weights, n_entries = network.n_params, model.encoding.n_params
    n_weight_bytes, n_features = np.uint64(n_weights * ITEM_SIZES[precision]), network.n_input_dims

    def then(before, step):
        apply, n = step

        @device
        def after(weights, x, y):
            hidden = local_array(n)
            before(weights, x, hidden)
            apply(weights, hidden, y)

        return after

    check = zero_or_nan(model.encoding.n_dims)
    first, *others = layers(network)
    hidden_widths = network.widths[1:-1]
    multiply = reduce(then, zip(others, hidden_widths, strict=True), first)

    @device
    def evaluate(params, x, y):
        features = local_array(n_features)
        encode(x, vector(np.uint64(params + n_weight_bytes), n_entries), features)
        spoil(check(x), features[:1])
        multiply(vector(params, n_weights), features, y)

    return evaluate
