"""Interface of targets, the CPU or a GPU: arrays, and engines that compute.

Models and trainers check arguments and own nothing but what a target made for them, so that their
code is the same for every target. Arrays are float32 in C order: NumPy arrays on the CPU,
DeviceArrays on a GPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from numbanet.array_types import Array
from numbanet.communicator import ALONE, Communicator
from numbanet.composition import Composition
from numbanet.division import Division
from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.engine import (
    AbstractNoise,
    Batch,
    DerivativeEngine,
    EncodingEngine,
    Engine,
    Gradients,
    LossSums,
)
from numbanet.losses.base import AbstractLoss
from numbanet.many_training import AbstractMany
from numbanet.optimizers.base import MOST_STEPS, AbstractOptimizer, ParamLayout
from numbanet.parameters import AbstractParameters
from numbanet.quantization import Quantized
from numbanet.step_result import Result

SAMPLE = 1024


class AbstractTraining(ABC):
    """State of an optimizer, and training steps.

    A step is skipped if its inputs, its loss or a gradient are infinite or NaN: the parameters stay
    as they are and the gradients are zeroed.
    """

    weighs_batches = False  # whether it learns by itself how many samples all ranks have
    n_steps: int  # made so far
    n_skipped_steps: int
    state: Any  # float32 [n_state, n_params], or of this rank's parameters
    matrices: Any  # float32 [n_matrix_state, n_matrices]
    statistics: Any  # float32 [n_statistics]

    def __init__(
        self, parameters: AbstractParameters, optimizer: AbstractOptimizer, division: Division,
        comm: Communicator,
    ):  # fmt: skip
        self._parameters, self._division, self._comm = parameters, division, comm
        rows = optimizer.weight_rows(division.n_params)
        self._weight_rows = [division.own_part(*each) for each in rows]
        self._n_assigned = parameters.n_assigned

    def use(self, engine: Any) -> None:
        """Make the next steps with another engine, of the same parameters."""
        self._engine = engine

    def follow(self) -> None:
        """Update the state for parameters that were assigned since the last call."""
        if self._n_assigned != self._parameters.n_assigned:
            self._n_assigned = self._parameters.n_assigned
            self.take_weights()

    def check_count(self, n_steps: int) -> None:
        """Raise a ValueError if no more steps can be counted."""
        if n_steps >= MOST_STEPS:
            raise ValueError(
                f"n_steps: {n_steps} steps were made, and no more can be counted; set "
                "trainer.n_steps to a smaller number"
            )

    @abstractmethod
    def whole_state(self) -> np.ndarray:
        """State of all parameters, on the host; all ranks call it at once."""

    @abstractmethod
    def set_state(self, values: np.ndarray) -> None:
        """Overwrite the state by that of all parameters, or by this rank's part of it."""

    @abstractmethod
    def take_weights(self) -> None:
        """Write the parameters to the rows of the state that hold weights."""

    @abstractmethod
    def is_begun(self, optimizer: AbstractOptimizer) -> bool:
        """Whether the optimizer has weights of its own for inference, if it ever has.

        Until then these are the parameters, to which its state is set when it begins.
        """

    @abstractmethod
    def step(
        self, batch: Batch, params: Any, loss: AbstractLoss | None, optimizer: AbstractOptimizer,
        gradients: Gradients | None, dl_dinput: Any, *, overwrite: bool, run_optimizer: bool,
    ) -> Result:  # fmt: skip
        """Compute `gradients` and `dl_dinput`, where they are given, and step the optimizer.

        Args:
            loss: of the batch's targets, if it has some.
            overwrite: zero the gradients before; otherwise add to them.
        """

    def again(
        self, inputs: Any, targets: Any, loss: AbstractLoss, optimizer: AbstractOptimizer
    ) -> Result | None:
        """Make a step of the usual kind with the arrays of an earlier one, where that is quicker.

        Returns:
            None, with nothing done, where `step` has to make it: always, by default.
        """
        return None


class AbstractTarget(ABC):
    """Device with one precision of parameters."""

    name: str  # such as "cpu" or "cuda:0"
    precision: str
    fused: bool | None = None  # see create_from_config

    # Arrays

    @abstractmethod
    def matrix(self, value: Any, name: str, n_columns: int, n_rows: int | None = None) -> Array:
        """Convert to an array of the target, [n_rows, n_columns]; raises TypeError, ValueError."""

    @abstractmethod
    def vector(self, value: Any, name: str, n: int) -> Array:
        """Convert to an array of the target, [n]; raises TypeError, ValueError."""

    @abstractmethod
    def array(self, value: Any, name: str, shape: tuple[int, ...]) -> Array:
        """Convert to an array of the target of that shape; raises TypeError, ValueError."""

    @abstractmethod
    def output(self, value: Any, name: str, shape: tuple[int, ...]) -> Array:
        """Check a user's array that is to be written in place; raises TypeError, ValueError."""

    @abstractmethod
    def overlap(self, a: Any, b: Any) -> bool:
        """Whether two arrays may share memory."""

    def output_apart(self, value: Any, name: str, shape: tuple[int, ...], **read: Any) -> Array:
        """`output`, with a ValueError too if it shares memory with an array that is read."""
        found = self.output(value, name, shape)
        for other, array in read.items():
            if array is not None and self.overlap(found, array):
                raise ValueError(f"{name}: shares memory with {other}; use another array")
        return found

    @abstractmethod
    def empty(self, *shape: int) -> Array:
        """New array, uninitialised."""

    @abstractmethod
    def zeros(self, *shape: int) -> Array:
        """New array of zeros."""

    @abstractmethod
    def set_zero(self, array: Any) -> None:
        """Zero an array."""

    @abstractmethod
    def from_host(self, array: np.ndarray) -> Array:
        """Copy of a NumPy array."""

    @abstractmethod
    def sampled(self, array: Any) -> Any:
        """Copy of up to about SAMPLE rows, spread over all; nothing is waited for."""

    @abstractmethod
    def to_host(self, array: Any) -> np.ndarray:
        """NumPy array with the same numbers, possibly in the same memory."""

    @abstractmethod
    def copy_from_host(self, array: Any, values: np.ndarray) -> None:
        """Overwrite an array of the target."""

    @abstractmethod
    def copy_columns(
        self, source: Any, first: int, to: Any, at: int, n: int, adds: bool = False
    ) -> None:
        """Copy n columns of a matrix, from `first` on, to those of another one from `at` on.

        Args:
            adds: whether to add to the target.
        """

    @abstractmethod
    def uniform(self, state: int, n: int, n_draws: int, n_threads: int) -> Any:
        """New array of n numbers in [0, 1), drawn by pcg32 from a state on; see Pcg32.

        Thread t takes n_draws numbers, from draw n_draws * t on, and stores number j at
        t + j * n_threads where that is below n.
        """

    # Engines and training

    @abstractmethod
    def write_mean(self, loss: LossSums, value: Any) -> None:
        """Write the mean loss to an existing array []."""

    @abstractmethod
    def row_loss(
        self, loss: AbstractLoss | None, batch: Batch, outputs: Any, dl_dy: Any
    ) -> LossSums:
        """Loss of outputs [n, n_outputs]; writes their gradient to dl_dy. Without a loss, 0."""

    @abstractmethod
    def noise(self, state: int) -> AbstractNoise:
        """Noise from a stream with that state."""

    @abstractmethod
    def lock(self) -> AbstractContextManager:
        """Lock for work with memory that is kept between calls: one thread at a time."""

    @abstractmethod
    def parameters(
        self, values: np.ndarray, n_matrix_params: int, quantized: tuple[Quantized, ...] = ()
    ) -> AbstractParameters:
        """Parameters of a new model; the first n_matrix_params are its network's."""

    @abstractmethod
    def gradients(self, n_params: int, n_matrix_params: int) -> Gradients:
        """Zeros that the engines can add to."""

    @abstractmethod
    def gradients_in(self, flat: Any, n_matrix_params: int) -> Gradients:
        """Gradients in an existing array of zeros [n_params]."""

    @abstractmethod
    def network_engine(self, model: EncodedNetwork) -> Engine:
        """Engine of a model; raises ValueError where it cannot be as requested."""

    @abstractmethod
    def encoding_engine(self, encoding: AbstractEncoding) -> EncodingEngine:
        """Engine of an encoding by itself, already padded."""

    @abstractmethod
    def derivative_engine(self, composition: Composition) -> DerivativeEngine:
        """Engine that differentiates the outputs of a composition by its inputs."""

    def inferences(self, n_outputs: int) -> Any:
        """Queue for recurring calls of a model, or None where it needs none."""
        return None

    @abstractmethod
    def device_functions(self, model: EncodedNetwork, **options: Any) -> Any:
        """Device functions for users' kernels; see NetworkWithInputEncoding. Raises ValueError."""

    @abstractmethod
    def many(
        self, model: EncodedNetwork, params: np.ndarray, optimizers: Sequence[AbstractOptimizer],
        layout: ParamLayout, deterministic: bool = False, quantized: tuple[Quantized, ...] = (),
    ) -> AbstractMany:  # fmt: skip
        """Training of many models, whose parameters are float32 [n_models, n_params]."""

    @abstractmethod
    def training(
        self, engine: Engine, parameters: AbstractParameters, optimizer: AbstractOptimizer,
        layout: ParamLayout, comm: Communicator = ALONE,
    ) -> AbstractTraining:  # fmt: skip
        """Training of a model: the optimizer's state, and its steps."""
