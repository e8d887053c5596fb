"""Configs as dicts: everything is made but what they ask gigabytes for."""

from pathlib import Path

from fuzz.campaign import Format
from fuzz.mutations import choice, mutated
from numbanet import registry
from numbanet.create import create_from_config
from numbanet.part_components import create_encoding_component, create_network_component
from numbanet.registry import ConfigError
from numbanet.unknown_options import UnknownOptions, UnknownOptionWarning

GRID = {"otype": "HashGrid", "n_levels": 4, "n_features_per_level": 2, "log2_hashmap_size": 8,
        "base_resolution": 4, "per_level_scale": 1.5}  # fmt: skip
MLP = {"otype": "FullyFusedMLP", "n_neurons": 16, "n_hidden_layers": 2, "activation": "ReLU",
       "output_activation": "None"}  # fmt: skip
PARTS = [
    {"otype": "Frequency", "n_frequencies": 3, "n_dims_to_encode": 1, "dims_to_encode_begin": 0},
    {"otype": "SphericalHarmonics", "degree": 2, "n_dims_to_encode": 3, "dims_to_encode_begin": 0},
    {"otype": "TriangleWave", "n_frequencies": 2, "n_dims_to_encode": 2, "dims_to_encode_begin": 1},
]
ENCODINGS = (
    GRID,
    {**GRID, "otype": "Grid", "type": "Dense", "interpolation": "Smoothstep", "n_levels": 2},
    {"otype": "OneBlob", "n_bins": 8},
    {"otype": "Identity", "scale": 2.0, "offset": -1.0},
    {"otype": "Composite", "reduction": "Concatenation", "nested": PARTS},
)
OPTIMIZERS = (
    {"otype": "Adam", "learning_rate": 1e-2, "beta1": 0.9, "l2_reg": 1e-6, "adabound": True},
    {"otype": "EMA", "decay": 0.95, "nested": {"otype": "ExponentialDecay", "decay_base": 0.3,
     "decay_start": 10, "decay_end": 100, "decay_interval": 5, "nested": {"otype": "Shampoo"}}},
    {"otype": "Lookahead", "alpha": 0.5, "n_steps": 4, "nested": {"otype": "Average",
     "n_samples": 3, "nested": {"otype": "Novograd", "beta2": 0.5}}},
    {"otype": "Batched", "batch_size_multiplier": 2, "nested": {"otype": "SGD"}},
    {"otype": "Composite", "nested": [{"otype": "SGD", "n_params_to_optimize": 1000},
     {"otype": "Adam", "n_params_to_optimize": 24}]},
)  # fmt: skip
LOSSES = ({"otype": "L2"}, {"otype": "RelativeL2Luminance"}, {"otype": "Huber", "delta": 0.1})
MOST_NUMBERS = 10**6  # in what is allocated


def config(rng):
    """A config that can be used, of any of the components."""
    return {
        "loss": choice(rng, LOSSES),
        "optimizer": choice(rng, OPTIMIZERS),
        "encoding": choice(rng, ENCODINGS),
        "network": {**MLP, "otype": choice(rng, ("FullyFusedMLP", "CutlassMLP"))},
    }


def create(config, folder: Path) -> None:
    """Make the components, and the model if its arrays are small."""
    if isinstance(config, dict) and all(isinstance(config.get(k), dict) for k in registry.KINDS):
        with UnknownOptions(warns=False):
            encoding = create_encoding_component(3, config["encoding"])
            network = create_network_component(encoding, 3, config["network"])
            optimizer = registry.create("optimizer", config["optimizer"], default="Adam")
        n = (encoding.n_params + network.n_params) * (optimizer.n_state + 2)
        if n > MOST_NUMBERS or network.n_output_dims > MOST_NUMBERS:
            return
    create_from_config(3, 3, config, device="cpu")


FORMAT = Format(
    "config_dicts",
    lambda rng: mutated(rng, config(rng)),
    create,
    (ConfigError,),
    (UnknownOptionWarning,),
)
