"""GLSL functions, run through WebGL 2 in headless Chromium."""

import browser
import exported_models as models
import pytest

from numbanet.exports.glsl import WIDTH, in_uniform_block
from numbanet.exports.packing import packed
from numbanet.exports.writing import files_of

# One of each kind; every encoding goes through the same lowering in the tests of WGSL.
FEW = [("Grid", 0), ("Grid", 3), ("Frequency", 0), ("SphericalHarmonics", 1), ("OneBlob", 0)]


def outputs(example, x, precision="float32"):
    numbers = packed(example.params, precision)
    source = files_of("glsl", example, numbers, "model", "a model", True, "auto")["program"]
    n_weights = example.network.n_params if hasattr(example, "network") else 0
    n_uniform = n_weights if in_uniform_block(n_weights) else 0
    arguments = source.decode(), numbers, n_uniform, x, example.n_output_dims, WIDTH
    return browser.evaluate(*arguments)


@pytest.mark.parametrize(("otype", "k"), FEW)
def test_encodings_agree(otype, k):
    models.assert_encoding_agrees(outputs, otype, k)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n_neurons", [16, 64])
def test_models_agree_in_every_precision(precision, n_neurons):
    network = {"n_neurons": n_neurons, "n_hidden_layers": 2, "activation": "Tanh"}
    models.assert_model_agrees(outputs, precision, **network)
