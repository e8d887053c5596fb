"""Interface of a target to the parameters of a model."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class AbstractParameters(ABC):
    """Parameters of a model: in float32, and in the form that the kernels read."""

    n_assigned = 0  # calls of `assign`
    own: Any  # parameters that are here, float32: all, or the part of this rank

    @property
    def is_divided(self) -> bool:
        """Whether each of several ranks has a part of them."""
        return False

    @property
    @abstractmethod
    def master(self) -> Any:
        """Parameters, float32 [n_params], read-only.

        Divided ones are gathered, for good, as by `array`: all ranks have to call it together.
        """

    @property
    @abstractmethod
    def array(self) -> Any:
        """Parameters, float32 [n_params]; writing to it changes the model."""

    @abstractmethod
    def assign(self, values: Any) -> None:
        """Copy the values of a float32 array [n_params] of the target."""

    @abstractmethod
    def from_host(self, values: np.ndarray) -> None:
        """Copy the values of a snapshot, float32 [n_params]."""

    @abstractmethod
    def to_host(self) -> np.ndarray:
        """Parameters, float32 [n_params]; all ranks have to call it together."""

    @abstractmethod
    def common(self) -> np.ndarray:
        """Numbers that are equal on all ranks: parameters, or the copies of divided ones."""

    @abstractmethod
    def current(self) -> Any:
        """Parameters as the kernels read them."""

    @abstractmethod
    def converted(self, values: Any) -> Any:
        """Other parameters, float32 [n_params], converted to what the kernels read."""

    @abstractmethod
    def in_float32(self, values: Any) -> Any:
        """The same in float32: the values themselves where no table is in few bits."""
