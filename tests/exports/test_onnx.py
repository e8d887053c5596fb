"""ONNX graphs: checked by ONNX itself, run by onnxruntime."""

import exported_models as models
import laws
import naive
import numpy as np
import pytest

from numbanet.exports.packing import packed
from numbanet.exports.writing import files_of

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
runtime = pytest.importorskip("onnxruntime", reason="needs the package onnxruntime")


def outputs(example, x, precision="float32"):
    numbers = packed(example.params, precision)
    program = files_of("onnx", example, numbers, "model", "a model", True, "auto")["program"]
    onnx.checker.check_model(onnx.load_from_string(program), full_check=True)
    assert {each.domain for each in onnx.load_from_string(program).opset_import} == {""}
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = runtime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize(("otype", "k"), models.ENCODINGS)
def test_every_encoding_agrees(otype, k):
    example, twin = models.encoding_example(otype, k)
    if example.n_output_dims == 0:
        pytest.skip("needs an output: the encoding has none")
    config, sizes = laws.EXAMPLES["encoding", otype][k]
    source = naive.encoding({"otype": otype, **config}, sizes["n_dims"])
    x = laws.inputs(source, 33, np.random.default_rng(1)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    models.assert_agrees(outputs(example, x), expected)


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_agrees(activation):
    network = {"n_neurons": 16, "n_hidden_layers": 1, "activation": activation}
    network["output_activation"] = activation
    example, twin = models.network_example({"otype": "Identity"}, 3, 2, network)
    x = np.random.default_rng(0).random((33, 3)).astype(np.float32)
    expected = models.expected_of(twin, example.params, "float32", x)
    models.assert_agrees(outputs(example, x), expected)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n", [0, 1, 21])
def test_models_agree_in_every_precision(precision, n):
    network = {"n_neurons": 32, "n_hidden_layers": 2}
    example, twin = models.network_example(models.HASH, 2, 3, network)
    x = np.random.default_rng(0).random((n, 2)).astype(np.float32)
    expected = models.expected_of(twin, example.params, precision, x)
    found = outputs(example, x, precision)
    assert found.shape == (n, 3)
    models.assert_agrees(found, expected)
