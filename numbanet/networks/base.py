"""Base of multi-layer perceptrons: sizes, parameter layout, initial values.

A network is a chain of layers y = W x, or y = W x + b with `bias`, with an activation between them
and one at the end. `n_hidden_layers` counts hidden activations, so there is one matrix more. The
parameters are all matrices, then the biases of all layers.
"""

import math
from abc import ABC
from dataclasses import field
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from numbanet.activations import Activation, activation
from numbanet.arrays import next_multiple
from numbanet.registry import ConfigError, check
from numbanet.shown import shown

MAX_PARAMS = 2**31 - 1
MOST_HIDDEN_LAYERS = 256
MOST_SIREN = 1e6  # the largest factor of initial weights
ALIGNMENT = 16  # inputs and outputs are padded to a multiple of this, as in tiny-cuda-nn


def activation_name(value: Any, path: str, **extra: Any) -> str:
    """Name of an activation; None, as Python and JSON write it, is "None"."""
    if value is None or isinstance(value, str):
        return "None" if value is None else value
    raise ConfigError(f"{path}: expected str, got {shown(value)}")


def activation_option(default: str) -> Any:
    """Dataclass field that names an activation."""
    return field(default=default, metadata={"convert": activation_name})


class AbstractMLP(ABC):
    """Sizes and parameters of a multi-layer perceptron; subclasses are frozen dataclasses."""

    n_input_dims: int  # padded already
    n_output_dims: int
    n_neurons: int
    n_hidden_layers: int
    activation: str
    output_activation: str
    bias: bool
    siren_omega: float
    siren_first_scale: float
    activations: tuple[Activation, Activation]  # of hidden layers and of the output

    def _check_sizes(self) -> None:
        """Raise an error for sizes that could not be compiled or indexed."""
        n_layers, allowed = self.n_hidden_layers, f"{MOST_HIDDEN_LAYERS} or less"
        check(n_layers <= MOST_HIDDEN_LAYERS, "n_hidden_layers", n_layers, allowed)
        check(self.n_output_dims <= MAX_PARAMS, "n_output_dims", self.n_output_dims, "less")
        n_params = f"less: there are {self.n_params} parameters, more than {MAX_PARAMS}"
        check(self.n_params <= MAX_PARAMS, "n_neurons", self.n_neurons, n_params)

    def _check_siren(self) -> None:
        for option in ("siren_omega", "siren_first_scale"):
            value = getattr(self, option)
            check(0 < value <= MOST_SIREN, option, value, f"more than 0, up to {MOST_SIREN:g}")

    def _resolve_activations(self) -> None:
        """Normalise the names of activations, and keep the activations.

        A name may stand for something else later, where a notebook defines an activation anew.
        Then a network made later does not equal this one, and has compiled code of its own.
        """
        found = []
        for option in ("activation", "output_activation"):
            found.append(activation(getattr(self, option), option))
            object.__setattr__(self, option, found[-1].name)
        object.__setattr__(self, "activations", tuple(found))

    @property
    def layer_activations(self) -> tuple[Activation, ...]:
        """Activation after each matrix."""
        hidden, output = self.activations
        return (*(hidden,) * self.n_hidden_layers, output)

    @property
    def padded_output_dims(self) -> int:
        return next_multiple(self.n_output_dims, ALIGNMENT)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Width of the input, of each hidden layer, and of the padded output."""
        hidden = (self.n_neurons,) * self.n_hidden_layers
        return (self.n_input_dims, *hidden, self.padded_output_dims)

    @cached_property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(fan out, fan in) of each matrix, in the order of the parameter vector."""
        return tuple(zip(self.widths[1:], self.widths[:-1], strict=True))

    @cached_property
    def n_weights(self) -> int:
        """Parameters of the matrices, which are the first ones."""
        return sum(rows * columns for rows, columns in self.shapes)

    @cached_property
    def bias_starts(self) -> tuple[int, ...]:
        """The first parameter of each layer's bias, [fan out]; empty without biases."""
        starts = accumulate(self.widths[1:-1], initial=self.n_weights)
        return tuple(starts) if self.bias else ()

    @cached_property
    def n_params(self) -> int:
        return self.n_weights + (sum(self.widths[1:]) if self.bias else 0)

    def initial_params(self, rng) -> np.ndarray:
        """Xavier-uniform weights (SIREN's for Sine), drawn in order: float32 [n_params].

        Glorot and Bengio 2010; Sitzmann et al. 2020, section 3.2, where sin(omega W x) has the
        factor apart: here it is in the weights. Biases are 0, but for Sine within the same bounds
        as the weights of their layer: with phases of 0, all of a network's functions were odd.
        """
        sizes = [rows * columns for rows, columns in self.shapes]
        found = [
            within(rng, n, bound) for n, bound in zip(sizes, self._initial_bounds, strict=True)
        ]
        if self.bias and self._is_siren:
            sizes = self.widths[1:]
            found += [
                within(rng, n, bound) for n, bound in zip(sizes, self._initial_bounds, strict=True)
            ]
        elif self.bias:
            found.append(np.zeros(self.n_params - self.n_weights, np.float32))
        return np.concatenate(found)

    @property
    def _is_siren(self) -> bool:
        return self.activation.lower() == "sine"

    @property
    def _initial_bounds(self) -> list[float]:
        """The largest weight of each matrix."""
        if not self._is_siren:
            return [math.sqrt(6.0 / (fan_in + fan_out)) for fan_out, fan_in in self.shapes]
        first = self.siren_omega * self.siren_first_scale / self.widths[0]
        return [first, *(math.sqrt(6.0 / fan_in) for _, fan_in in self.shapes[1:])]


def within(rng, n: int, bound: float) -> np.ndarray:
    """Uniform numbers between -bound and bound, float32 [n]."""
    bound = np.float32(bound)
    return rng.uniform(n) * np.float32(2) * bound - bound
