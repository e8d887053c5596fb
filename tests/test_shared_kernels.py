"""Numbers that the CPU's kernels read while they run: models that differ in them share kernels."""

import models
import numpy as np
import pytest
from laws import compiles_nothing

import numbanet

GRID = {**models.HASH, "n_levels": 2}
COMPOSITE = {
    "otype": "Composite",
    "nested": [{**GRID, "n_dims_to_encode": 2}, {**GRID, "n_features_per_level": 1}],
}
# Encodings, and what is changed in them.
CHANGES = {
    "hash": (GRID, {"per_level_scale": 1.7}, {"log2_hashmap_size": 5}, {"base_resolution": 7}),
    "tiled": ({**GRID, "otype": "TiledGrid"}, {"per_level_scale": 1.0}, {"base_resolution": 9}),
    "dense": ({**GRID, "otype": "DenseGrid"}, {"per_level_scale": 1.1}, {"base_resolution": 2}),
    "fixed": ({**GRID, "fixed_point_pos": True}, {"per_level_scale": 1.2}),
}


def trained(encoding, n_dims):
    """The loss, the outputs and the gradient of the inputs, of a model that made a step."""
    config = models.make_config(encoding, models.mlp("FullyFusedMLP", 16, 1))
    model = numbanet.create_from_config(n_dims, 2, config, device="cpu")
    rng = np.random.default_rng(0)
    x = rng.random((70, n_dims), np.float32)
    y = rng.random((70, 2), np.float32)
    loss = float(model.trainer.training_step(x, y))
    outputs, context = model.network.forward(x)
    return model, x, loss, outputs, model.network.backward(context, y)


def everywhere(config, change):
    """A config with the change in each of its grids."""
    nested = config.get("nested")
    if nested is None:
        return {**config, **change}
    return {**config, "nested": [{**each, **change} for each in nested]}


@pytest.mark.parametrize("name", CHANGES)
def test_grids_that_differ_in_their_tables_compile_once(name):
    encoding, *changes = CHANGES[name]
    trained(encoding, 2)
    with compiles_nothing():
        for change in changes:
            trained({**encoding, **change}, 2)


def test_grids_in_a_composite_compile_once():
    trained(COMPOSITE, 3)
    with compiles_nothing():
        trained(everywhere(COMPOSITE, {"per_level_scale": 1.7, "log2_hashmap_size": 5}), 3)


def test_models_that_share_kernels_keep_their_own_tables():
    """What they compute is what each grid's own functions compute, with constants."""
    for scale in (1.25, 2.0):
        model, x, _, _, _ = trained({**GRID, "per_level_scale": scale}, 2)
        network = model.network
        encoding = network.engine.model.encoding
        params = network.params[network.engine.model.network.n_params :]
        expected = np.zeros((len(x), encoding.n_outputs), np.float32)
        encoding.forward_rows(x, 0, len(x), params, expected, 0, 0)
        found = network.engine._encoding.forward(x, params)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
