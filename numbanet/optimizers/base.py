"""Interface of optimizers: a step on one parameter, and the size of its state."""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np

from numbanet.device import ONE, device, exp_minus_one
from numbanet.optimizers.layout import ParamLayout
from numbanet.optimizers.limits import Limit

MOST_STEPS = 2**31 - 2  # the number of the next one is an int32


HUGE = 2.0**63  # the square of a float32 below is finite, and leaves room for decay
LARGEST_SQUARE = np.float32(HUGE**2)
BOLD = 2.0**20  # learning rates above make parameters overflow within a training


@device
def bounded_square(x):
    """x^2, clamped to LARGEST_SQUARE, so that moving averages of it stay finite."""
    return min(x * x, LARGEST_SQUARE)


class AbstractOptimizer(ABC):
    """Update of parameters from gradients.

    The state of all parameters is one float32 array [n_state, n_params]. What may change at run
    time reaches the device as data, so that it never causes a compilation: `hyperparams`, from
    which `schedule` makes the `scalars` of a step. An optimizer that needs one number per matrix,
    such as the norm of its gradient, has `matrices`, float32 [n_matrix_state, n_matrices], where
    n_matrices is the length of matrix_ranges.

    One that needs products of matrices has `statistics`, float32 [n_statistics].

    A step is: schedule once; then, where n_matrix_state > 0, the sum of summand over each matrix
    and matrix_step with it; then precondition, where the optimizer `preconditions`; then step for
    each parameter.
    """

    otype: str
    learning_rate: float
    n_state = 0
    n_scalars = 1
    n_matrix_state = 0
    rates: tuple[int, ...] = (0,)  # which scalars are learning rates
    decays: tuple[int, ...] = ()  # which are multiplied by schedules too, and are no rates
    least_bad_gradient = HUGE  # this and larger ones count as infinite
    inference_row: int | None = None  # row of the state that holds the weights for inference
    touches_all_state = True  # whether `step` uses most rows of the state, known before it runs

    @property
    def structure(self) -> str:
        """Nesting of the optimizers; the state of one structure means nothing to another."""
        return self.otype

    def learning_rate_options(self, value: float) -> dict[str, Any]:
        """Options that set the learning rate, as in a config."""
        return {"learning_rate": value}

    def matrix_ranges(self, layout: ParamLayout) -> tuple[tuple[int, int], ...]:
        """Range of each matrix, as matrix_step counts them: first parameter, and last + 1.

        Raises:
            ConfigError: the optimizer does not fit this layout.
        """
        return layout.matrix_ranges

    def weight_rows(self, n_params: int) -> list[tuple[int, int, int]]:
        """Ranges of the state that hold weights, such as an average of them.

        A row, the first parameter, and the last one + 1. There, parameters that are assigned become
        the state, as at the beginning.
        """
        return []

    @property
    def n_calls_to_begin(self) -> int:
        """Number of the step that first writes the weights for inference."""
        return 1

    def initial_state(self, params: np.ndarray) -> np.ndarray:
        """State before the first step, float32 [n_state, n_params]."""
        state = np.zeros((self.n_state, len(params)), np.float32)
        for row, first, last in self.weight_rows(len(params)):
            state[row, first:last] = params[first:last]
        return state

    def limits(self, layout: ParamLayout, state, matrices, statistics) -> Iterator[Limit]:
        """Conditions on numbers of the state, without which the next steps may make NaN.

        Training satisfies them. The arrays are NumPy's. A limit may need the ones before it.
        """
        yield from ()

    def hyperparams(self) -> tuple[float, ...]:
        """Numbers that may change between steps, such as the learning rate."""
        return (self.learning_rate,)

    @property
    def n_hyperparams(self) -> int:
        return len(self.hyperparams())

    @property
    def is_tame(self) -> bool:
        """Whether no step that begins with numbers of usual magnitude can overflow.

        These are parameters below 2^100 and gradients below least_bad_gradient. A step of an
        optimizer that is not tame, which takes absurd options, is tried and may be taken back.
        """
        return False

    @property
    def schedule(self):
        """Device function (t, hyperparams, scalars) that writes the n_scalars values of step t.

        t is an int32 and 1 at the first step. Equal arguments write equal values. Here there is the
        learning rate alone.
        """
        return learning_rate_alone

    @abstractmethod
    def step(self, layout: ParamLayout):
        """Device function (i, w, g, state, scalars, matrices) that returns the new weight i.

        w is the weight and g its gradient, divided by the loss scale. Reads and writes state[:, i].
        Written without branches, so that the CPU loop over i vectorises.
        """

    def moves(self, layout: ParamLayout):
        """Device function (i, g): whether `step` changes parameter i or its state, given g.

        Where it does not, the step may be left out.
        """
        return always

    def summand(self, layout: ParamLayout):
        """Device function (i, w, g, state, scalars): parameter i's part of its matrix's sum.

        Is called once for each parameter and may write state[:, i].
        """
        return no_summand

    def matrix_step(self, layout: ParamLayout):
        """Device function (m, total, matrices, scalars) that updates matrices[:, m]."""
        return no_matrix_step

    def n_statistics(self, layout: ParamLayout) -> int:
        """Length of the statistics."""
        return 0

    def preconditions(self, layout: ParamLayout) -> bool:
        """Whether a step needs whole matrices."""
        return self.n_statistics(layout) > 0

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        """Update preconditioners from whole matrices, with the operations of a target.

        Arrays are the target's, and the host does not read them: cpu/operations.py has the
        operations. Called only if `preconditions`.

        Raises:
            TypeError: the optimizer has statistics but no precondition.
        """
        raise TypeError(f"{type(self).__name__} has n_statistics > 0; it must define precondition")

    def state_shapes(self, layout: ParamLayout) -> dict[str, tuple[int, ...]]:
        """Shapes of all state of the optimizer, by name; from its options alone.

        Raises:
            ConfigError: the optimizer does not fit this layout.
        """
        n_matrices = len(self.matrix_ranges(layout))
        return {
            "state": (self.n_state, layout.n_params),
            "matrices": (self.n_matrix_state, n_matrices),
            "statistics": (self.n_statistics(layout),),
        }

    def kernel_key(self) -> "AbstractOptimizer":
        """Optimizer with the same compiled code, independent of the hyperparams."""
        return dataclasses.replace(self, learning_rate=0.0)


def log_decay(decay: float) -> float:
    """ln decay, and for 0 a sufficiently small number: 1 - e^-100 is 1."""
    return math.log(decay) if decay > 0 else -100.0


def debiased_average(decay: float):
    """Device function (t): weight of the previous average in a debiased one, and of value t.

    With these the exponential moving average has no bias towards where it started.
    """
    log, rest = np.float32(log_decay(decay)), np.float32(1 - decay)
    decay = np.float32(decay)

    @device
    def debiased_average(t):
        steps = np.float32(t)
        total = exp_minus_one(log * steps)
        return decay * exp_minus_one(log * (steps - ONE)) / total, -rest / total

    return debiased_average


@device
def learning_rate_alone(t, hyperparams, scalars):
    scalars[0] = hyperparams[0]


@device
def always(i, g):
    return True


@device
def no_summand(i, w, g, state, scalars):
    return np.float32(0)


@device
def no_matrix_step(m, total, matrices, scalars):
    return
