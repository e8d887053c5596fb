"""Substitutes for operators that ONNX lacks: the bits of a float32, and a few functions."""

import numpy as np
from onnx import TensorProto

EXPONENTS = np.array([0.0, *(2.0 ** (k - 127) for k in range(1, 255)), np.inf]).astype(np.float32)


def bits_to_float(graph, bits: str) -> str:
    """Float32 with these bits, from its sign, exponent and fraction."""
    exponent = graph.add(
        "BitwiseAnd", graph.add("Div", bits, graph.number(2**23)), graph.number(255)
    )
    fraction = graph.add("BitwiseAnd", bits, graph.number(2**23 - 1))
    is_negative = graph.add("GreaterOrEqual", bits, graph.number(2**31))
    fraction = graph.add("Cast", fraction, to=TensorProto.FLOAT)
    part = graph.add("Mul", fraction, graph.number(2.0**-23, np.float32))
    size = graph.add(
        "Mul",
        graph.add("Add", part, graph.number(1, np.float32)),
        graph.add("Gather", graph.constant(EXPONENTS), exponent),
    )
    return graph.add("Where", is_negative, graph.add("Neg", size), size)


def float_to_bits(graph, name: str) -> str:
    """Bits of a float32 that is a normal number or zero."""
    size = graph.add("Abs", name)
    axis = graph.constant(np.array([-1], np.int64))
    reached = graph.add(
        "GreaterOrEqual", graph.add("Unsqueeze", size, axis), graph.constant(EXPONENTS[1:255])
    )
    counted = graph.add("Cast", reached, to=TensorProto.INT64)
    exponent = graph.add("ReduceSum", counted, axis, keepdims=0)
    is_zero = graph.add("Equal", exponent, graph.number(0))
    unit = graph.add("Gather", graph.constant(EXPONENTS), exponent)
    safe = graph.add("Where", is_zero, graph.number(1, np.float32), unit)
    rest = graph.add("Sub", graph.add("Div", size, safe), graph.number(1, np.float32))
    scaled = graph.add("Mul", rest, graph.number(2.0**23, np.float32))
    fraction = graph.add("Cast", scaled, to=TensorProto.INT64)
    bits = graph.add("Add", graph.add("Mul", exponent, graph.number(2**23)), fraction)
    bits = graph.add("Where", is_zero, graph.number(0), bits)
    is_negative = graph.add("Less", name, graph.number(0, np.float32))
    return graph.add("Where", is_negative, graph.add("Add", bits, graph.number(2**31)), bits)


BITS = {"bits_to_float": bits_to_float, "float_to_bits": float_to_bits}


def trunc(graph, name: str) -> str:
    return graph.add("Mul", graph.add("Sign", name), graph.add("Floor", graph.add("Abs", name)))


def exp2(graph, name: str) -> str:
    return graph.add("Pow", graph.number(2, np.float32), name)


def log2(graph, name: str) -> str:
    return graph.add("Div", graph.add("Log", name), graph.number(np.log(2.0), np.float32))


COMPOSED = {"trunc": trunc, "exp2": exp2, "log2": log2}
