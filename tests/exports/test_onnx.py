"""ONNX graphs: checked by ONNX itself, run by onnxruntime."""

import exported_models as models
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
    if models.encoding_example(otype, k)[0].n_output_dims == 0:
        pytest.skip("needs an output: the encoding has none")
    models.assert_encoding_agrees(outputs, otype, k)


@pytest.mark.parametrize("activation", models.ACTIVATIONS)
def test_every_activation_agrees(activation):
    models.assert_activation_agrees(outputs, activation)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("n", [0, 1, 21])
def test_models_agree_in_every_precision(precision, n):
    models.assert_model_agrees(outputs, precision, n, n_neurons=32, n_hidden_layers=2)
