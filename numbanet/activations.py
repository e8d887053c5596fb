"""Activation functions: a class of device functions per name, in the registry's table.

The derivatives take the output where they can, so that only outputs have to be stored; SiLU and
Sine need the input. Squareplus and Softplus are those of tiny-cuda-nn, ten times sharper than
usual.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from numbanet.device import (
    ONE,
    TWO,
    ZERO,
    at_least,
    at_most,
    cos,
    device,
    exp,
    exp_minus_one,
    log_one_plus_small,
    select,
    sin,
)
from numbanet.registry import check, find, register, registered
from numbanet.unknown_options import near_otype

SLOPE = np.float32(0.01)  # of LeakyReLU below zero
SHARPNESS = np.float32(10.0)
INVERSE_SHARPNESS = np.float32(0.1)
THREE, FOUR, SIX = np.float32(3.0), np.float32(4.0), np.float32(6.0)
TANH_MAX = np.float32(20.0)  # of the exponent: tanh 10 is 1 in float32
SILU_MAX = np.float32(30.0)  # beyond, 1 - sigmoid(x) is nothing but its rounding error
SILU_MIN = np.float32(-100.0)  # below, sigmoid(x) has stopped falling
SQUARE_MAX = np.float32(1e18)  # the root of a square that float32 holds


class AbstractActivation:
    """Base of the activations in the registry: a subclass holds device functions, not methods.

    `kept` is the output y of `forward`, or the input x if `from_input`.
    """

    from_input = False
    forward: Any = None  # (x) -> y
    backward: Any = None  # (dl_dy, kept) -> dl_dx
    second: Any = None  # (kept) -> the second derivative of y for x; only double backward needs it
    third: Any = None  # (kept) -> the third one; only second derivatives of outputs need it


@register("activation", "None")
class NoActivation(AbstractActivation):
    @device
    def forward(x):
        return x

    @device
    def backward(dl_dy, y):
        return dl_dy

    @device
    def second(y):
        return ZERO

    third = second


@register("activation", "ReLU")
class ReLU(AbstractActivation):
    @device
    def forward(x):
        return at_least(x, ZERO)

    @device
    def backward(dl_dy, y):
        return select(y > ZERO, dl_dy, ZERO)

    second = NoActivation.second


@register("activation", "LeakyReLU")
class LeakyReLU(AbstractActivation):
    @device
    def forward(x):
        return max(x, SLOPE * x)

    @device
    def backward(dl_dy, y):
        return select(y > ZERO, dl_dy, SLOPE * dl_dy)

    second = NoActivation.second


@device
def sigmoid(x):
    return ONE / (ONE + exp(-x))


@register("activation", "SiLU")
class SiLU(AbstractActivation):
    from_input = True

    @device
    def forward(x):
        return at_least(x, SILU_MIN) * sigmoid(x)

    @device
    def backward(dl_dy, x):
        s = sigmoid(x)
        return dl_dy * (s + min(max(x, SILU_MIN), SILU_MAX) * s * (ONE - s))

    @device
    def second(x):  # s (1 - s) (2 + x (1 - 2 s)), which is even in x
        size = min(abs(x), -SILU_MIN)
        e = exp(-size)
        inverse = ONE / (ONE + e)
        return e * inverse * inverse * (TWO - size * (ONE - e) * inverse)

    @device
    def third(x):  # s' (x (1 - 6 s') + 3 (1 - 2 s)), which is odd in x
        size = min(abs(x), -SILU_MIN)
        e = exp(-size)
        inverse = ONE / (ONE + e)
        slope = e * inverse * inverse
        value = slope * (size * (ONE - SIX * slope) - THREE * (ONE - e) * inverse)
        return select(x < ZERO, -value, value)


@register("activation", "Exponential")
class Exponential(AbstractActivation):
    forward = exp

    @device
    def backward(dl_dy, y):
        return dl_dy * y

    @device
    def second(y):
        return y

    third = second


@register("activation", "Sine")
class Sine(AbstractActivation):
    from_input = True
    forward = sin

    @device
    def backward(dl_dy, x):
        return dl_dy * cos(x)

    @device
    def second(x):
        return -sin(x)

    @device
    def third(x):
        return -cos(x)


@register("activation", "Sigmoid")
class Sigmoid(AbstractActivation):
    forward = sigmoid

    @device
    def backward(dl_dy, y):
        return dl_dy * y * (ONE - y)

    @device
    def second(y):
        return y * (ONE - y) * (ONE - TWO * y)

    @device
    def third(y):
        return y * (ONE - y) * (ONE - SIX * y * (ONE - y))


@register("activation", "Squareplus")
class Squareplus(AbstractActivation):
    @device
    def forward(x):  # (X + sqrt(X^2 + 4)) / 20 for X = 10 x, without cancellation for X < 0
        size = abs(x)
        square = min(size, SQUARE_MAX) * min(size, SQUARE_MAX)
        root = max(math.sqrt(square + FOUR * INVERSE_SHARPNESS * INVERSE_SHARPNESS), size)
        return at_least(x, ZERO) + TWO * INVERSE_SHARPNESS * INVERSE_SHARPNESS / (size + root)

    @device
    def backward(dl_dy, y):
        scaled = SHARPNESS * min(y, SQUARE_MAX * INVERSE_SHARPNESS)
        square = scaled * scaled
        return dl_dy * (square / (square + ONE))

    @device
    def second(y):  # 20 (Y / (Y^2 + 1))^3 for Y = 10 y
        scaled = SHARPNESS * min(y, SQUARE_MAX * INVERSE_SHARPNESS)
        ratio = scaled / (scaled * scaled + ONE)
        return TWO * SHARPNESS * ratio * ratio * ratio

    @device
    def third(y):  # 600 (Y / (Y^2 + 1))^4 (1 - Y^2) / (1 + Y^2)
        scaled = SHARPNESS * min(y, SQUARE_MAX * INVERSE_SHARPNESS)
        square = scaled * scaled
        ratio = scaled / (square + ONE)
        fourth = ratio * ratio * ratio * ratio
        return SIX * SHARPNESS * SHARPNESS * fourth * (ONE - square) / (ONE + square)


@register("activation", "Softplus")
class Softplus(AbstractActivation):
    @device
    def forward(x):  # ln(1 + e^X) / 10 for X = 10 x, with an exponent that is never positive
        return at_least(x, ZERO) + INVERSE_SHARPNESS * log_one_plus_small(exp(-SHARPNESS * abs(x)))

    @device
    def backward(dl_dy, y):
        return -dl_dy * exp_minus_one(-SHARPNESS * y)

    @device
    def second(y):
        e = exp_minus_one(-SHARPNESS * y)
        return -SHARPNESS * e * (ONE + e)

    @device
    def third(y):
        e = exp_minus_one(-SHARPNESS * y)
        return -SHARPNESS * SHARPNESS * e * (ONE + e) * (ONE + TWO * e)


@register("activation", "Tanh")
class Tanh(AbstractActivation):
    @device
    def forward(x):  # (e^2x - 1) / (e^2x + 1)
        e = exp_minus_one(at_most(at_least(TWO * x, -TANH_MAX), TANH_MAX))
        return e / (e + TWO)

    @device
    def backward(dl_dy, y):
        return dl_dy * (ONE - y * y)

    @device
    def second(y):
        return -TWO * y * (ONE - y * y)

    @device
    def third(y):
        square = y * y
        return -TWO * (ONE - square) * (ONE - THREE * square)


@dataclass(frozen=True)
class Activation:
    """The device functions of an activation, as AbstractActivation describes them."""

    name: str
    forward: Any
    backward: Any
    second: Any
    third: Any = None
    from_input: bool = False

    def __reduce__(self):  # device functions do not travel between processes, but names do
        return activation, (self.name,)


@cache
def record(component: type) -> Activation:
    """Device functions of a registered class as an Activation."""
    for method in ("forward", "backward"):
        if getattr(component, method) is None:
            raise TypeError(
                f"activation {component.otype}: {component.__qualname__}.{method} is missing"
            )
    return Activation(
        component.otype,
        component.forward,
        component.backward,
        component.second,
        component.third,
        component.from_input,
    )


def activation(name: str, option: str = "activation") -> Activation:
    """Activation with that name, in any case and with or without spaces ("Leaky ReLU").

    Raises:
        ValueError: there is none; the message lists what exists and starts with `option`.
    """
    found = find("activation", name)
    if found is None and isinstance(name, str):
        found = find("activation", name.replace(" ", ""))
    names = registered("activation")
    hint = near_otype("activation", name, names).replace("; ", ", ") if found is None else ""
    check(found is not None, option, name, ", ".join(names) + hint)
    return record(found)
