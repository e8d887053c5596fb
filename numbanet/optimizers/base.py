"""What every optimizer offers: a step on one parameter, and the size of its state."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ParamLayout:
    """How a flat parameter vector is divided: the network's matrices first, then the rest."""

    n_params: int
    shapes: tuple[tuple[int, int], ...] = ()

    @cached_property
    def n_matrix_params(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)


class AbstractOptimizer(ABC):
    """Updates parameters from gradients.

    The state of all parameters is one float32 array [n_state, n_params]. What changes from step to
    step (learning rate, bias corrections) reaches the device as `scalars`, so that it never causes
    a compilation.
    """

    n_state: int
    n_scalars: int
    inference_row: int | None = None  # row of the state that holds the weights for inference

    @abstractmethod
    def scalars(self, t: int) -> tuple[float, ...]:
        """The n_scalars values for step t; the first step is t = 1."""

    @abstractmethod
    def step(self, layout: ParamLayout):
        """Device function (i, weights, gradients, state, scalars) that updates parameter i.

        Gradients arrive divided by the loss scale. Written without branches, so that the CPU loop
        over i vectorises.
        """

    def kernel_key(self) -> "AbstractOptimizer":
        """An optimizer with the same compiled code, whatever the run-time scalars are."""
        return dataclasses.replace(self, learning_rate=0.0)
