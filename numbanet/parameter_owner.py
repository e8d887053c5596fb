"""Owner of parameters: their arrays on a target, their gradients, and names for parts of both."""

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from numbanet.array_types import Array, ArrayLike
from numbanet.quantization import Quantized
from numbanet.target import AbstractTarget


class ParameterOwner(ABC):
    """Parameters and their gradients, both one flat float32 vector.

    Args:
        params: initial values, float32 [n_params].
        n_matrix_params: how many of them, from the first on, are those of matrices.
        target: of the arrays.
        quantized: parameters that kernels read in few bits.
    """

    __slots__ = {  # with texts for help()
        "target": "The device, in a precision, with its memory and kernels.",
        "parameters": "The parameters, with their copy for the kernels.",
        "quantized": "Parameters that kernels read in few bits.",
        "target_gradients": "The gradients, as the kernels have them.",
        **dict.fromkeys(("_n_params", "__weakref__")),
    }

    def __init__(
        self, params: np.ndarray, n_matrix_params: int, target: AbstractTarget,
        quantized: tuple[Quantized, ...] = (),
    ):  # fmt: skip
        self.target, self.quantized = target, quantized
        self.parameters = target.parameters(params, n_matrix_params, quantized)
        self.target_gradients = target.gradients(params.size, n_matrix_params)
        self._n_params = params.size

    @property
    def device(self) -> str:
        """Device of the model, such as "cpu" or "cuda:0"."""
        return self.target.name

    @property
    def precision(self) -> str:
        """Precision of the parameters that the kernels read."""
        return self.target.precision

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return self._n_params

    @property
    def params(self) -> Array:
        """All parameters, float32 [n_params]; writing to it changes the model.

        Assigning it (`model.params = values`) sets all copies, as in tiny-cuda-nn: what a trainer
        averages of the weights, such as those for inference, becomes the new values too, while
        moments and the number of steps stay. Writing to the array, or to a view of it, changes the
        trained weights; averages that have begun follow with the next steps.
        """
        return self.parameters.array

    @params.setter
    def params(self, values: ArrayLike) -> None:
        self.parameters.assign(self.target.vector(values, "params", self.n_params))

    @property
    def gradients(self) -> Array:
        """Gradient of all parameters, float32 [n_params], as of the last backward pass."""
        return self.target_gradients.flat

    def named_parameters(self) -> dict[str, Array]:
        """Views of the parameters by name, such as "network.0" [fan out, fan in]."""
        return self._named(self.params)

    def named_gradients(self) -> dict[str, Array]:
        """Views of the gradients, by the names of named_parameters."""
        return self._named(self.gradients)

    @abstractmethod
    def named_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each part of the parameters, in their order."""

    def _named(self, flat: Any) -> dict[str, Any]:
        views, start = {}, 0
        for name, shape in self.named_shapes().items():
            stop = start + math.prod(shape)
            views[name] = flat[start:stop].reshape(*shape)
            start = stop
        return views
