"""Base of multi-layer perceptrons: sizes, parameter layout, initial values.

A network is a chain of matrices without biases, y = W x, with an activation between them and one
at the end. `n_hidden_layers` counts hidden activations, so there is one matrix more.
"""

import math
from abc import ABC
from dataclasses import field
from functools import cached_property
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
    def n_params(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    def initial_params(self, rng) -> np.ndarray:
        """Xavier-uniform values (SIREN's for Sine), drawn in order: float32 [n_params].

        Glorot and Bengio 2010; Sitzmann et al. 2020, section 3.2, where sin(omega W x) has the
        factor apart: here it is in the weights.
        """
        matrices = []
        for k, (fan_out, fan_in) in enumerate(self.shapes):
            if self.activation.lower() == "sine":
                first = self.siren_omega * self.siren_first_scale
                bound = first / fan_in if k == 0 else math.sqrt(6.0 / fan_in)
            else:
                bound = math.sqrt(6.0 / (fan_in + fan_out))
            bound = np.float32(bound)
            uniform = rng.uniform(fan_out * fan_in)
            matrices.append(uniform * np.float32(2) * bound - bound)
        return np.concatenate(matrices)
