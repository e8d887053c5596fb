"""The models of several parts that tests share, with their twins."""

import naive
import naive_composed
import numpy as np
from models import HASH, mlp

import numbanet

BLOBS = {"otype": "OneBlob", "n_bins": 8}
SGD = {"otype": "SGD", "learning_rate": 0.1}
# name -> n_input_dims, n_output_dims, config
COMPOSED = {
    "two heads": (  # a density, and a colour that reads it beside a direction
        4,
        18,
        {
            "loss": {"otype": "L2"},
            "optimizer": SGD,
            "parts": {
                "density": {
                    "inputs": "input[0:2]",
                    "encoding": HASH,
                    "network": mlp("FullyFusedMLP", 16, 2),
                    "n_output_dims": 3,
                },
                "color": {
                    "inputs": ["density", "input[2:]"],
                    "network": mlp("CutlassMLP", 100, 2, "SiLU", "Sine"),
                    "n_output_dims": 17,
                },
            },
            "outputs": ["color", "density[0]"],
        },
    ),
    "shared": (  # one table read at two places, beside another encoding, and a network at the end
        5,
        3,
        {
            "loss": {"otype": "RelativeL2"},
            "optimizer": SGD,
            "parts": {
                "here": {"inputs": "input[0:2]", "encoding": HASH},
                "there": {"inputs": ["input[3]", "input[2]"], "shares": "here"},
                "blobs": {"inputs": "input[4:5]", "encoding": BLOBS},
                "head": {
                    "inputs": ["here[2:4]", "there", "blobs[1:7]"],
                    "network": mlp("CutlassMLP", 5, 1, "Sigmoid", bias=True),
                    "n_output_dims": 3,
                },
            },
            "outputs": "head",
        },
    ),
}


def created(name, **options):
    """A model, its twin, lively parameters of both, and inputs away from borders of cells."""
    n_in, n_out, config = COMPOSED[name]
    model = numbanet.create_from_config(n_in, n_out, config, **{"device": "cpu", **options})
    rng, network = np.random.default_rng(7), model.network
    params = np.array(network.params)
    for key, place in network.composition.places.items():
        if key.endswith("params") or ".biases." in key:
            params[place.start : place.stop] = rng.normal(size=place.stop - place.start)
    network.params = params
    twin = naive_composed.Composed(n_in, config)
    named = {key: np.asarray(view) for key, view in network.named_parameters().items()}
    return model, twin, twin.params_of(named)


def batch_of(name, n, seed=0):
    n_in, n_out, _ = COMPOSED[name]
    rng = np.random.default_rng(seed)
    x, clear = rng.random((40 * n + 8, n_in), np.float32), True
    grid = naive.encoding(HASH, 2)
    for columns in ([0, 1], [3, 2]) if n_in == 5 else ([0, 1],):
        distance = grid.distance_to_border(x[:, columns].astype(np.float64))
        clear = clear & (distance > 1e-3).all(axis=1)
    x = np.ascontiguousarray(x[clear][:n])
    return x, rng.normal(size=(n, n_out)).astype(np.float32)
