"""Evaluation of a model by a single lane, in float32: any model, precision and GPU.

Its values lie in the lane's local memory and every weight is read from global memory, so it is
many times slower than what the warps of a fused kernel do together.
"""

from functools import cache, reduce

import numpy as np

from numbanet.device import device, local_array
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.networks.per_sample import layers
from numbanet.storage.views import ITEM_SIZES, VECTORS


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
