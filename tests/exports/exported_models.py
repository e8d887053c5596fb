"""Models to export, with what their outputs are: those of the slow twins, in float64."""

import laws
import naive
import numpy as np

from numbanet import registry
from numbanet.encoded_network import EncodedNetwork
from numbanet.exports.packing import packed

ENCODINGS = [
    (otype, k)
    for (kind, otype), examples in laws.EXAMPLES.items()
    if kind == "encoding"
    for k in range(len(examples))
]
ACTIVATIONS = list(registry.registered("activation"))
HASH = {
    "otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 5, "base_resolution": 4,
    "per_level_scale": 1.6,
}  # fmt: skip


class Example:
    """What `export` needs of a model, without compiling its kernels."""

    def __init__(self, encoding, network, params):
        self.encoding, self.params = encoding, np.asarray(params, np.float32)
        self.n_input_dims = encoding.n_dims
        self.n_output_dims = encoding.n_outputs
        if network is not None:
            self.network, self.n_output_dims = network, network.n_output_dims


def encoding_example(otype, k, seed=0):
    """An encoding of the laws' examples with its twin."""
    config, sizes = laws.EXAMPLES["encoding", otype][k]
    component = laws.create("encoding", otype, config, sizes)
    twin = naive.encoding({"otype": otype, **config}, sizes["n_dims"])
    params = np.random.default_rng(seed).normal(size=component.n_params)
    return Example(component, None, params), twin.forward


def network_example(config, n_inputs, n_outputs, network, seed=0):
    """A whole model with its twin; its parameters are those that training starts with, larger."""
    twin = naive.Model(n_inputs, n_outputs, {"encoding": config, "network": network})
    encoding = registry.create("encoding", config, default="Identity", n_dims=n_inputs)
    width = -(-encoding.n_outputs // 16) * 16
    component = registry.create(
        "network", network, default="FullyFusedMLP", n_input_dims=width, n_output_dims=n_outputs
    )
    n_params = EncodedNetwork(encoding.padded(width), component).n_params
    rng = np.random.default_rng(seed)
    params = rng.uniform(-1, 1, n_params) * 0.4
    return Example(encoding, component, params), twin.inference


def expected_of(twin, params, precision, x):
    """The twin's outputs at the parameters as they are stored."""
    stored = packed(params, precision).unpacked().astype(np.float64)
    return twin(np.asarray(x, np.float64), stored)


def assert_agrees(found, expected, tolerance=1e-5):
    error = np.linalg.norm(found - expected)
    assert error <= tolerance * max(np.linalg.norm(expected), 1e-30), error


# What holds in every language; `outputs` gives those of an example for inputs.


def assert_encoding_agrees(outputs, otype, k, n=33):
    example, twin = encoding_example(otype, k)
    config, sizes = laws.EXAMPLES["encoding", otype][k]
    source = naive.encoding({"otype": otype, **config}, sizes["n_dims"])
    x = laws.inputs(source, n, np.random.default_rng(1)).astype(np.float32)
    assert_agrees(outputs(example, x), expected_of(twin, example.params, "float32", x))


def assert_activation_agrees(outputs, activation):
    network = {"n_neurons": 16, "n_hidden_layers": 1, "activation": activation}
    network |= {"output_activation": activation, "bias": True}
    example, twin = network_example({"otype": "Identity"}, 3, 2, network)
    x = np.random.default_rng(0).random((33, 3)).astype(np.float32)
    assert_agrees(outputs(example, x), expected_of(twin, example.params, "float32", x))


def assert_model_agrees(outputs, precision, n=37, n_outputs=3, **network):
    """Of a hash grid and a network, at the parameters as that precision stores them."""
    example, twin = network_example(HASH, 2, n_outputs, network)
    x = np.random.default_rng(0).random((n, 2)).astype(np.float32)
    found = outputs(example, x, precision)
    assert found.shape == (n, n_outputs)
    assert_agrees(found, expected_of(twin, example.params, precision, x))
