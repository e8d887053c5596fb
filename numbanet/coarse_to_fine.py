"""Coarse-to-fine passes: each sample reads the levels of its grids up to one of its own."""

import dataclasses
from typing import Any

import numpy as np

from numbanet.composed_engine import ComposedEngine
from numbanet.composition import Composition
from numbanet.engine import Batch, LossSums, Service
from numbanet.leveled_composition import leveled_composition
from numbanet.shown import shown
from numbanet.target import AbstractTarget


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
    def is_queued(self) -> bool:
        """Whether passes run without the host."""
        return getattr(self.plain, "is_queued", True)

    @property
    def generation(self) -> int:
        """Counter that changes when memory used by queued work has moved."""
        return self.plain.generation + self.leveled.generation

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
        if np.isscalar(max_level) or getattr(max_level, "shape", None) == ():
            try:
                value = float(max_level)
            except (TypeError, ValueError) as error:
                raise ValueError(f"max_level: {shown(max_level)} is no number") from error
            if not 0 <= value <= 1000:
                raise ValueError(f"max_level: {value} is not allowed; use a number from 0 to 1")
            max_level = np.full((n, 1), value, np.float32)
        elif isinstance(max_level, (list, tuple)) and len(max_level) == n:
            max_level = column_of(max_level)
        elif getattr(max_level, "ndim", None) == 1:
            max_level = max_level.reshape(-1, 1)
        column = target.matrix(max_level, "max_level", 1, n)
        both = target.empty(n, self.n_inputs + 1)
        target.copy_columns(inputs, 0, both, 0, self.n_inputs)
        target.copy_columns(column, 0, both, self.n_inputs, 1)
        return both

    def of_step(self, training: Any, batch: Batch, max_level: Any, dl_dinput: Any) -> Any:
        """Set up a trainer's step for inputs with levels; returns memory for their gradient."""
        inputs = self.inputs(batch.inputs, max_level)
        training.use(self)
        batch.inputs = inputs
        return None if dl_dinput is None else self._target.empty(*inputs.shape)

    def evaluate(self, inputs: Any, max_level: Any, params: Any, outputs: Any) -> Any:
        """Outputs, in a given array or in a new one."""
        return self.leveled.inference(self.inputs(inputs, max_level), params, outputs)

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


def column_of(levels: list | tuple) -> np.ndarray:
    """Levels of a list as a column [n, 1]; raises ValueError if some are no numbers."""
    try:
        return np.asarray(levels, np.float32).reshape(len(levels), 1)
    except (TypeError, ValueError) as error:
        raise ValueError(f"max_level: {shown(levels)} are no numbers, one a sample") from error
