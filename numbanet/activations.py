"""Activation functions: a device function and its derivative per name, in one table.

The derivative takes the output where it can, so that only outputs have to be stored; SiLU and Sine
need the input. Squareplus and Softplus are those of tiny-cuda-nn, ten times sharper than usual.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from numbanet.device import (
    HALF,
    ONE,
    TWO,
    ZERO,
    cos,
    device,
    exp,
    exp_minus_one,
    log_one_plus_small,
    select,
    sin,
)
from numbanet.registry import check

SLOPE = np.float32(0.01)  # of LeakyReLU below zero
SHARPNESS = np.float32(10.0)
INVERSE_SHARPNESS = np.float32(0.1)
FOUR = np.float32(4.0)
TANH_MAX = np.float32(20.0)  # of the exponent: tanh 10 is 1 in float32
SILU_MAX = np.float32(30.0)  # beyond, 1 - sigmoid(x) is nothing but its rounding error


@device
def identity(x):
    return x


@device
def identity_backward(dl_dy, y):
    return dl_dy


@device
def relu(x):
    return max(x, ZERO)


@device
def relu_backward(dl_dy, y):
    return select(y > ZERO, dl_dy, ZERO)


@device
def leaky_relu(x):
    return max(x, SLOPE * x)


@device
def leaky_relu_backward(dl_dy, y):
    return select(y > ZERO, dl_dy, SLOPE * dl_dy)


@device
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@device
def sigmoid_backward(dl_dy, y):
    return dl_dy * y * (ONE - y)


@device
def silu(x):
    return x * sigmoid(x)


@device
def silu_backward(dl_dy, x):
    s = sigmoid(x)
    return dl_dy * (s + min(x, SILU_MAX) * s * (ONE - s))


@device
def exponential_backward(dl_dy, y):
    return dl_dy * y


@device
def sine_backward(dl_dy, x):
    return dl_dy * cos(x)


@device
def squareplus(x):  # (X + sqrt(X^2 + 4)) / 20 for X = 10 x, without cancellation for X < 0
    scaled = SHARPNESS * x
    total = abs(scaled) + math.sqrt(scaled * scaled + FOUR)
    return HALF * INVERSE_SHARPNESS * select(x > ZERO, total, FOUR / total)


@device
def squareplus_backward(dl_dy, y):
    square = (SHARPNESS * y) * (SHARPNESS * y)
    return dl_dy * (square / (square + ONE))


@device
def softplus(x):  # ln(1 + e^X) / 10 for X = 10 x, with an exponent that is never positive
    return max(x, ZERO) + INVERSE_SHARPNESS * log_one_plus_small(exp(-SHARPNESS * abs(x)))


@device
def softplus_backward(dl_dy, y):
    return -dl_dy * exp_minus_one(-SHARPNESS * y)


@device
def tanh(x):  # (e^2x - 1) / (e^2x + 1)
    e = exp_minus_one(min(max(TWO * x, -TANH_MAX), TANH_MAX))
    return e / (e + TWO)


@device
def tanh_backward(dl_dy, y):
    return dl_dy * (ONE - y * y)


@dataclass(frozen=True)
class Activation:
    """forward(x) -> y, and backward(dl_dy, y) -> dl_dx, or backward(dl_dy, x) if `from_input`."""

    name: str
    forward: Any
    backward: Any
    from_input: bool = False


ACTIVATIONS = {
    each.name: each
    for each in (
        Activation("None", identity, identity_backward),
        Activation("ReLU", relu, relu_backward),
        Activation("LeakyReLU", leaky_relu, leaky_relu_backward),
        Activation("SiLU", silu, silu_backward, from_input=True),
        Activation("Exponential", exp, exponential_backward),
        Activation("Sine", sin, sine_backward, from_input=True),
        Activation("Sigmoid", sigmoid, sigmoid_backward),
        Activation("Squareplus", squareplus, squareplus_backward),
        Activation("Softplus", softplus, softplus_backward),
        Activation("Tanh", tanh, tanh_backward),
    )
}
_BY_KEY = {name.lower(): each for name, each in ACTIVATIONS.items()}


def activation(name: str, option: str = "activation") -> Activation:
    """The activation of that name, in any case and with or without spaces ("Leaky ReLU").

    Raises:
        ValueError: there is none; the message lists what exists and starts with `option`.
    """
    key = name.lower().replace(" ", "") if isinstance(name, str) else None
    check(key in _BY_KEY, option, name, ", ".join(ACTIVATIONS))
    return _BY_KEY[key]
