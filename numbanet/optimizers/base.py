"""What every optimizer offers: a step on one parameter, and the size of its state."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class ParamLayout:
    """How a flat parameter vector is divided: the network's matrices first, then the rest."""

    n_params: int
    shapes: tuple[tuple[int, int], ...] = ()

    @cached_property
    def n_matrix_params(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    @cached_property
    def matrix_ranges(self) -> tuple[tuple[int, int], ...]:
        """First parameter and last + 1 of each matrix; the rest counts as one more."""
        ends = [0]
        for rows, columns in self.shapes:
            ends.append(ends[-1] + rows * columns)
        if ends[-1] < self.n_params:
            ends.append(self.n_params)
        return tuple(pairwise(ends))

    @property
    def n_matrices(self) -> int:
        return len(self.matrix_ranges)


class AbstractOptimizer(ABC):
    """Updates parameters from gradients.

    The state of all parameters is one float32 array [n_state, n_params]. What may change at run
    time reaches the device as data, so that it never causes a compilation: `hyperparams`, from
    which `schedule` makes the `scalars` of a step. An optimizer that needs one number per matrix,
    such as the norm of its gradient, has `matrices`, float32 [n_matrix_state, n_matrices]; only
    then has it a summand and a matrix_step.

    A step is: schedule once; then, where n_matrix_state > 0, the sum of summand over each matrix
    and matrix_step with it; then step for each parameter.
    """

    n_state: int
    n_scalars: int
    n_matrix_state = 0
    inference_row: int | None = None  # row of the state that holds the weights for inference

    def initial_state(self, params: np.ndarray) -> np.ndarray:
        """The state before the first step, float32 [n_state, n_params]."""
        return np.zeros((self.n_state, len(params)), np.float32)

    @abstractmethod
    def hyperparams(self) -> tuple[float, ...]:
        """What may change between steps, such as the learning rate."""

    @property
    def n_hyperparams(self) -> int:
        return len(self.hyperparams())

    @property
    @abstractmethod
    def schedule(self):
        """Device function (t, hyperparams, scalars) that writes the n_scalars values of step t.

        t is an int32 and 1 at the first step. Equal arguments write equal values.
        """

    @abstractmethod
    def step(self, layout: ParamLayout):
        """Device function (i, w, g, state, scalars, matrices) that returns the new weight i.

        w is the weight and g its gradient, divided by the loss scale. Reads and writes state[:, i].
        Written without branches, so that the CPU loop over i vectorises.
        """

    def summand(self, layout: ParamLayout):
        """Device function (i, w, g, state, scalars): parameter i's part of its matrix's sum."""
        raise NotImplementedError

    def matrix_step(self, layout: ParamLayout):
        """Device function (m, total, matrices, scalars) that updates matrices[:, m]."""
        raise NotImplementedError

    def kernel_key(self) -> "AbstractOptimizer":
        """An optimizer with the same compiled code, whatever the hyperparams are."""
        return dataclasses.replace(self, learning_rate=0.0)
