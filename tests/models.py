"""The models that tests share: kernels are kept by config, so each of these compiles once."""

import copy

import naive
import numpy as np

import numbanet


def make_config(encoding, network, loss="L2", optimizer=None):
    return {
        "loss": {"otype": loss},
        "optimizer": optimizer or {"otype": "Adam", "learning_rate": 1e-2, "epsilon": 1e-15},
        "encoding": encoding,
        "network": network,
    }


def mlp(
    otype, n_neurons, n_hidden_layers, activation="ReLU", output_activation="None", bias=False
):  # fmt: skip
    config = {
        "otype": otype,
        "n_neurons": n_neurons,
        "n_hidden_layers": n_hidden_layers,
        "activation": activation,
        "output_activation": output_activation,
    }
    return {**config, "bias": True} if bias else config


HASH = {
    "otype": "HashGrid",
    "n_levels": 4,
    "n_features_per_level": 2,
    "log2_hashmap_size": 7,
    "base_resolution": 4,
    "per_level_scale": 1.5,
}
SMOOTH = {
    "otype": "Grid",
    "type": "Dense",
    "interpolation": "Smoothstep",
    "n_levels": 3,
    "n_features_per_level": 1,
    "base_resolution": 3,
    "per_level_scale": 1.6,
}


def any_model(encoding):
    """Strategies for a model of this encoding or another, and for a number n of samples."""
    from hypothesis import strategies as st  # here, since processes of tests need none

    activations = st.sampled_from(list(naive.ACTIVATIONS))
    widths, depths = st.sampled_from([1, 5, 16, 33]), st.integers(0, 3)
    otype, bias = st.just("CutlassMLP"), st.booleans()
    return {
        "n_input_dims": st.integers(1, 4),
        "n_output_dims": st.sampled_from([1, 3, 16, 18]),
        "encoding": st.sampled_from([{"otype": "Identity"}, encoding, HASH, SMOOTH]),
        "network": st.builds(mlp, otype, widths, depths, activations, activations, bias),
        "n": st.integers(1, 300),
    }


# name -> n_input_dims, n_output_dims, config
MODELS = {
    "hash": (2, 3, make_config(HASH, mlp("FullyFusedMLP", 16, 2))),
    "smooth": (
        3,
        2,
        make_config(SMOOTH, mlp("FullyFusedMLP", 32, 1, "Tanh", "SiLU"), "RelativeL2"),
    ),
    "one_blob": (
        1,
        1,
        make_config(
            {"otype": "OneBlob", "n_bins": 8},
            mlp("CutlassMLP", 33, 1, "Sigmoid", "Sigmoid"),
            "L1",
            {"otype": "SGD", "learning_rate": 1.0},
        ),
    ),
    "composite": (  # with padding between its parts, and before the harmonics
        5,
        2,
        make_config(
            {
                "otype": "Composite",
                "nested": [
                    {
                        "otype": "TriangleWave",
                        "n_frequencies": 3,
                        "n_dims_to_encode": 1,
                        "dims_to_encode_begin": 1,
                    },
                    {**HASH, "n_levels": 2, "n_dims_to_encode": 2, "dims_to_encode_begin": 0},
                    {
                        "otype": "SphericalHarmonics",
                        "degree": 2,
                        "n_dims_to_encode": 3,
                        "dims_to_encode_begin": 2,
                    },
                ],
            },
            mlp("FullyFusedMLP", 16, 1),
        ),
    ),
    "identity": (
        5,
        17,
        make_config({"otype": "Identity"}, mlp("CutlassMLP", 100, 2, "SiLU", "Sine")),
    ),
    "linear": (
        3,
        2,
        make_config(
            {"otype": "OneBlob", "n_bins": 4}, mlp("CutlassMLP", 1, 0, "ReLU", "Squareplus")
        ),
    ),
    "narrow": (
        17,
        1,
        make_config({"otype": "Identity"}, mlp("CutlassMLP", 1, 1, "LeakyReLU", "Tanh")),
    ),
    "wide": (
        2,
        16,
        make_config({"otype": "OneBlob"}, mlp("FullyFusedMLP", 128, 1, "Squareplus", "Softplus")),
    ),
    "usual": (2, 4, make_config({"otype": "OneBlob"}, mlp("FullyFusedMLP", 64, 3, "Softplus"))),
    # With those above, each activation occurs inside and at the output.
    "sine": (1, 1, make_config({"otype": "Identity"}, mlp("CutlassMLP", 5, 2, "Sine", "ReLU"))),
    "exponential": (
        2,
        2,
        make_config({"otype": "Identity"}, mlp("CutlassMLP", 8, 1, "Exponential", "LeakyReLU")),
    ),
    "biased": (2, 5, make_config(HASH, mlp("CutlassMLP", 20, 2, "SiLU", "Sigmoid", bias=True))),
    "product": (
        2,
        2,
        make_config({"otype": "Identity"}, mlp("CutlassMLP", 8, 1, "None", "Exponential")),
    ),
}


def config_of(name):
    return copy.deepcopy(MODELS[name][2])


def create(name, **options):
    n_input_dims, n_output_dims, config = MODELS[name]
    return numbanet.create_from_config(
        n_input_dims, n_output_dims, config, **{"device": "cpu", **options}
    )


def lively_params(twin, seed=0):
    """Initial weights and tables with values of the order of 1, which make gradients matter."""
    params = twin.initial_params(1337)
    rng = np.random.default_rng(seed)
    for bias in twin.mlp.biases(params) if twin.mlp.bias else ():
        bias[:] = 0.2 * rng.normal(size=bias.size)
    n_table = twin.encoding.n_params
    if n_table:
        params[-n_table:] = np.random.default_rng(seed).normal(size=n_table)
    return params.astype(np.float32)


def create_lively(name, **options):
    """A model with lively params, and its twin."""
    twin = naive.Model(*MODELS[name])
    model = create(name, **options)
    model.network.params = lively_params(twin)
    return model, twin


def inputs_of(twin, n, seed=0, params=None):
    """Float32 inputs where float32 and float64 agree about cells and about signs before ReLUs."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (2 * n + 8, twin.encoding.n_dims)).astype(np.float32)
    is_clear = (twin.encoding.distance_to_border(x.astype(np.float64)) > 1e-3).all(axis=1)
    if params is not None:
        weights, table = twin.split(params)
        _, before = twin.mlp.layers(twin.encoding.forward(x.astype(np.float64), table), weights)
        for values in before:
            is_clear &= (np.abs(values) > 1e-5).all(axis=1) | (values == 0).any(axis=1)
    x = x[is_clear][:n]
    assert len(x) == n
    return x


def batch_of(name, n, seed=0):
    """Inputs and targets of a function worth learning."""
    n_input_dims, n_output_dims, _ = MODELS[name]
    rng = np.random.default_rng(seed)
    x = rng.random((n, n_input_dims), np.float32)
    phases = np.arange(n_output_dims)
    targets = 0.5 + 0.4 * np.sin(5 * x[:, :1] + 3 * x[:, -1:] ** 2 + phases)
    return x, targets.astype(np.float32)
