"""Coarse-to-fine passes: each sample reads the levels of its grids up to one of its own."""

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from numbanet.composed_engine import ComposedEngine
from numbanet.composition import Composition
from numbanet.engine import Batch, DerivativeEngine, Gradients, LossSums, Service
from numbanet.leveled_composition import leveled_composition
from numbanet.shown import shown
from numbanet.target import AbstractTarget

MOST = 1000  # which counts as 1, as in tiny-cuda-nn
NO_NUMBERS = (str, bytes, np.complexfloating)  # though float takes some of them


class CoarseToFine:
    """Engine of inputs with one more column, the level; without it, the model's engine serves.

    Args:
        target: where it runs.
        composition: that of the model.
        engine: the model's for training.

    Raises:
        TypeError: the model has no grid.
    """

    def __init__(self, target: AbstractTarget, composition: Composition, engine: Any):
        self._target, self.plain, self.n_inputs = target, engine, composition.n_input_dims
        self.leveled = ComposedEngine(target, leveled_composition(composition))
        self.precision, self.n_output_dims = target.precision, composition.n_output_dims

    @property
    def model(self) -> Any:
        """The model whose parts the engine evaluates."""
        return self.plain.model

    @property
    def deterministic(self) -> bool:
        """Whether sums have the same bits in every run."""
        return self.plain.deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self.plain.deterministic = self.leveled.deterministic = value

    @property
    def is_queued(self) -> bool:
        """Whether passes run without the host."""
        return getattr(self.plain, "is_queued", True)

    @property
    def generation(self) -> int:
        """Counter that changes when memory used by queued work has moved."""
        return self.plain.generation + self.leveled.generation

    @cached_property
    def derivative_engine(self) -> DerivativeEngine:
        """Engine of `model.derivatives`, whose inputs are what `inputs` returned."""
        return self._target.derivative_engine(self.leveled.composition)

    def services(self) -> list[Service]:
        """Kernels of passes with a max_level."""
        return [
            dataclasses.replace(each, passes=f"{each.passes}, with max_level")
            for each in self.leveled.services()
        ]

    def inputs(self, inputs: Any, max_level: Any) -> Any:
        """Append the level as the last column; raises ValueError for invalid levels."""
        n, target = inputs.shape[0], self._target
        self.leveled.deterministic = self.plain.deterministic
        column = column_of(max_level, n, target)
        both = target.empty(n, self.n_inputs + 1)
        target.copy_columns(inputs, 0, both, 0, self.n_inputs)
        target.copy_columns(column, 0, both, self.n_inputs, 1)
        return both

    def of_step(self, training: Any, batch: Batch, max_level: Any, dl_dinput: Any) -> Any:
        """Set up a trainer's step for inputs with levels; returns memory for their gradient."""
        inputs = self.inputs(batch.inputs, max_level)
        training.use(self)
        batch.inputs, batch.has_levels = inputs, True
        return None if dl_dinput is None else self._target.empty(*inputs.shape)

    def evaluate(self, inputs: Any, max_level: Any, params: Any, outputs: Any) -> Any:
        """Outputs, in a given array or in a new one."""
        return self.inference(self.inputs(inputs, max_level), params, outputs)

    # Passes of what `inputs` returned

    def inference(self, inputs: Any, params: Any, outputs: Any) -> Any:
        """Outputs, in a given array or in a new one."""
        return self.leveled.inference(inputs, params, outputs)

    def propagate(self, inputs: Any, params: Any, dl_dy: Any, gradients: Any, dl_dx: Any) -> Any:
        """Backpropagate; returns the gradient of the model's inputs if there is memory for all."""
        batch = Batch(inputs, external_dl_dy=dl_dy)
        self.leveled.forward_backward(batch, params, None, gradients, dl_dx)
        return None if dl_dx is None else self.without_level(dl_dx)

    def double_backward(
        self, inputs: Any, params: Any, dl_dy: Any, dl_ddl_dx: Any, gradients: Gradients | None
    ) -> tuple[Any, Any]:
        """See Engine.double_backward; both gradients of inputs are those of the model's."""
        along = self._target.zeros(*inputs.shape)
        self._target.copy_columns(dl_ddl_dx, 0, along, 0, self.n_inputs)
        found, dl_dx = self.leveled.double_backward(inputs, params, dl_dy, along, gradients)
        return found, self.without_level(dl_dx)

    def without_level(self, gradient: Any, to: Any = None) -> Any:
        """Gradient of the model's inputs: that of all columns, without the level's."""
        if to is None:
            to = self._target.empty(gradient.shape[0], self.n_inputs)
        self._target.copy_columns(gradient, 0, to, 0, self.n_inputs)
        return to

    def forward_backward(self, batch: Batch, *given: Any, **options: Any) -> LossSums:
        """See Engine.forward_backward; inputs with a level column use the leveled kernels."""
        is_leveled = batch.inputs.shape[1] > self.n_inputs
        engine = self.leveled if is_leveled else self.plain
        return engine.forward_backward(batch, *given, **options)


def column_of(max_level: Any, n: int, target: AbstractTarget) -> Any:
    """Levels of n samples, a number or an array, as a column [n, 1]; see CoarseToFine.inputs.

    Arrays on a GPU are not waited for: where they are NaN, so are the outputs.
    """
    if isinstance(max_level, (str, bytes)):
        raise ValueError(f"max_level: {shown(max_level)} is no number")
    if np.isscalar(max_level) or getattr(max_level, "shape", None) == ():
        try:
            value = np.nan if isinstance(max_level, NO_NUMBERS) else float(max_level)
        except (TypeError, ValueError) as error:
            raise ValueError(f"max_level: {shown(max_level)} is no number") from error
        if not 0 <= value <= MOST:
            found = shown(max_level)
            raise ValueError(f"max_level: {found} is not allowed; use a number from 0 to 1")
        max_level = np.full((n, 1), value, np.float32)
    elif isinstance(max_level, (list, tuple)) and len(max_level) == n:
        try:
            levels = np.asarray(max_level).astype(np.float32, casting="same_kind")
            max_level = levels.reshape(n, 1)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"max_level: {shown(max_level)} are no numbers, one a sample"
            ) from error
    elif getattr(max_level, "ndim", None) == 1:
        max_level = max_level.reshape(-1, 1)
    if isinstance(max_level, np.ndarray) and max_level.dtype.kind in "fiu":
        wrong = np.flatnonzero(~((max_level >= 0) & (max_level <= MOST)))
        if wrong.size:
            i = int(wrong[0])
            raise ValueError(
                f"max_level: {max_level.flat[i]} of sample {i} is not allowed; use numbers from 0 "
                "to 1"
            )
    return target.matrix(max_level, "max_level", 1, n)
