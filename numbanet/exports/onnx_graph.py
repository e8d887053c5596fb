"""Export of a model as an ONNX graph of standard operators.

The encoding's program becomes operators on [n] numbers, the samples, one for each statement; the
network is matrix products, and its activations are programs of one number on [n, width].
Integers are int64 there, kept in their range.
"""

import numpy as np
import onnx
from numba.core import types
from onnx import TensorProto, helper, numpy_helper

from numbanet.encodings.finite_inputs import spoil, zero_or_nan
from numbanet.exports.arithmetic import constant
from numbanet.exports.onnx_operations import Operations
from numbanet.exports.packing import Packed
from numbanet.exports.program import I64, Array, Program, without_unused
from numbanet.exports.traced import VECTOR, view
from numbanet.exports.tracing import Tracer
from numbanet.exports.translations import TRANSLATIONS

OPSET = 18  # the first one with bitwise operators
IR_VERSION = 8


def onnx_model(model, packed: Packed, name: str, title: str) -> bytes:
    """Serialized graph: "x" [n, n_inputs] float32 to "y" [n, n_outputs] float32.

    Raises:
        ExportError: a component cannot be translated.
    """
    graph = Operations()
    add_parameters(graph, packed)
    network = getattr(model, "network", None)
    n_weights = 0 if network is None else network.n_params
    width = model.n_output_dims if network is None else network.n_input_dims
    columns = encoded(graph, model.encoding.padded(width), n_weights)
    if not columns:
        raise ValueError("an encoding without outputs has no ONNX graph")
    features = graph.stacked(columns)
    result = features if network is None else layers(graph, network, features)
    graph.nodes.append(helper.make_node("Identity", [result], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", model.n_input_dims])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", model.n_output_dims])
    made = helper.make_graph(graph.nodes, name, [x], [y], graph.constants, doc_string=title)
    opset = [helper.make_opsetid("", OPSET)]
    found = helper.make_model(made, opset_imports=opset, producer_name="numbanet")
    found.ir_version = IR_VERSION
    onnx.checker.check_model(found)
    return found.SerializeToString()


def add_parameters(graph: Operations, packed: Packed) -> None:
    """Add the parameters as float32 [n], named "parameters"."""
    values = packed.values
    if packed.precision == "float32":
        graph.constants.append(numpy_helper.from_array(values, "parameters"))
        return
    if packed.precision == "float16":
        graph.constants.append(numpy_helper.from_array(values.view(np.float16), "halves"))
        node = helper.make_node("Cast", ["halves"], ["parameters"], to=TensorProto.FLOAT)
        graph.nodes.append(node)
        return
    n = packed.scales.size * packed.block
    padded = np.zeros(n, np.int8)
    padded[: values.size] = values
    numbers = graph.constant(padded.reshape(-1, packed.block))
    scales = graph.constant(packed.scales.reshape(-1, 1))
    product = graph.add("Mul", graph.add("Cast", numbers, to=TensorProto.FLOAT), scales)
    shape = graph.constant(np.array([-1], np.int64))
    graph.nodes.append(helper.make_node("Reshape", [product, shape], ["parameters"]))


def encoded(graph: Operations, encoding, first_param: int) -> list[str]:
    """Features, [n] each."""
    tracer = Tracer(TRANSLATIONS, keeps_loops=False, rounds=True)
    inputs, outputs = Array("x", encoding.n_dims), Array("y", encoding.n_outputs)
    tracer.contents.update({inputs: {}, outputs: {}})
    tracer.arrays.append(outputs)
    x, y = view(inputs, 0, inputs.length), view(outputs, 0, outputs.length)
    entries = view(None, first_param, encoding.n_params)
    tracer.call(encoding.forward.py_func, (VECTOR,) * 3, (x, entries, y))
    if encoding.n_outputs:
        zero = tracer.call(zero_or_nan(encoding.n_dims).py_func, (VECTOR,), (x,))
        tracer.call(spoil.py_func, (types.float32, VECTOR), (zero, y))
    tracer.store_anyway(outputs)
    body = without_unused([*tracer.declared, *tracer.block])
    program = Program(inputs.length, outputs.length, [outputs], body)
    return graph.columns(program)


def layers(graph: Operations, network, features: str) -> str:
    """Outputs of a network, [n, n_outputs]."""
    first = 0
    for k, (fan_out, fan_in) in enumerate(network.shapes):
        n_out = network.n_output_dims if k == network.n_hidden_layers else fan_out
        matrix = graph.part("parameters", first, n_out * fan_in, (n_out, fan_in))
        product = graph.add("MatMul", features, graph.add("Transpose", matrix, perm=[1, 0]))
        if network.bias:
            bias = graph.part("parameters", network.bias_starts[k], n_out, (1, n_out))
            product = graph.add("Add", product, bias)
        features = activated(graph, network.layer_activations[k], product)
        first += fan_out * fan_in
    return features


def activated(graph: Operations, activation, values: str) -> str:
    """Activation of every number."""
    tracer = Tracer(TRANSLATIONS, keeps_loops=False, rounds=True)
    inputs, outputs = Array("x", 1), Array("y", 1)
    tracer.contents.update({inputs: {}, outputs: {}})
    tracer.arrays.append(outputs)
    x = tracer.load(view(inputs, 0, 1), constant(I64, 0))
    forward = getattr(activation.forward, "py_func", activation.forward)
    result = tracer.call(forward, (types.float32,), (x,))
    tracer.store(view(outputs, 0, 1), constant(I64, 0), result)
    tracer.store_anyway(outputs)
    body = without_unused([*tracer.declared, *tracer.block])
    (found,) = graph.columns(Program(1, 1, [outputs], body), inputs=[values])
    return found
