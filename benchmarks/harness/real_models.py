"""The models that people train most, by name."""

import numbanet

GRID = {
    "otype": "HashGrid", "n_levels": 16, "n_features_per_level": 2, "base_resolution": 16,
    "log2_hashmap_size": 19, "per_level_scale": 1.447,
}  # fmt: skip
IMAGE = {**GRID, "log2_hashmap_size": 15, "per_level_scale": 1.5}
DISTANCE = {**GRID, "n_levels": 8, "n_features_per_level": 4, "per_level_scale": 1.6}
FREQUENCY = {"otype": "Frequency", "n_frequencies": 10}
HARMONICS = {
    "otype": "Composite",
    "nested": [
        {**GRID, "n_dims_to_encode": 3},
        {"otype": "SphericalHarmonics", "degree": 4, "n_dims_to_encode": 3},
    ],
}
# name -> n_input_dims, n_output_dims, encoding, n_neurons, n_hidden_layers
MODELS = {
    "image": (2, 3, IMAGE, 64, 2),
    "density": (3, 16, GRID, 64, 1),
    "field": (3, 4, GRID, 64, 2),
    "distance": (3, 1, DISTANCE, 64, 2),
    "large_image": (2, 3, {**GRID, "per_level_scale": 1.5}, 64, 2),
    "small_field": (3, 4, {**GRID, "log2_hashmap_size": 15}, 64, 2),
    "grid_and_harmonics": (6, 4, HARMONICS, 64, 2),
    "frequencies": (3, 4, FREQUENCY, 64, 4),
}
ADAM = {"otype": "Adam", "learning_rate": 1e-3}


def create(model, device="cuda", optimizer=ADAM, **options):
    """A model from an entry of MODELS; options are those of create_from_config."""
    n_inputs, n_outputs, encoding, n_neurons, n_hidden_layers = model
    network = {"n_neurons": n_neurons, "n_hidden_layers": n_hidden_layers}
    config = {
        "loss": {"otype": "L2"},
        "optimizer": optimizer,
        "encoding": encoding,
        "network": {"otype": "FullyFusedMLP", **network},
    }
    return numbanet.create_from_config(n_inputs, n_outputs, config, device=device, **options)
