"""Interface of a target to the parameters of a model."""

from abc import ABC, abstractmethod
from typing import Any


class AbstractParameters(ABC):
    """Parameters of a model: in float32, and in the form that the kernels read."""

    master: Any  # the parameters, float32 [n_params], read-only
    n_assigned = 0  # calls of `assign`

    @property
    @abstractmethod
    def array(self) -> Any:
        """Parameters, float32 [n_params]; writing to it changes the model."""

    @abstractmethod
    def assign(self, values: Any) -> None:
        """Copy the values of a float32 array [n_params] of the target."""

    @abstractmethod
    def current(self) -> Any:
        """Parameters as the kernels read them."""

    @abstractmethod
    def converted(self, values: Any) -> Any:
        """Other parameters, float32 [n_params], converted to what the kernels read."""

    @abstractmethod
    def in_float32(self, values: Any) -> Any:
        """The same in float32: the values themselves where no table is in few bits."""
