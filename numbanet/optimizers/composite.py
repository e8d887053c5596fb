"""Composite: an optimizer for each part of the parameters.

Each nested config has one more option, n_params_to_optimize: the size of its part.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Any

import numpy as np

from numbanet import registry
from numbanet.device import device, nothing
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.optimizers.wrapper import create_nested, inference_weight
from numbanet.registry import ConfigError, check, register
from numbanet.shown import shown

MOST_PARTS = 64  # each is compiled


@dataclass(frozen=True)
class Share:
    """Optimizer of a number of consecutive parameters."""

    n_params_to_optimize: int
    optimizer: AbstractOptimizer

    def to_config(self) -> dict[str, Any]:
        own = registry.to_config(self.optimizer)
        return {**own, "n_params_to_optimize": self.n_params_to_optimize}


def create_parts(value: Any, path: str) -> tuple[Share, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{path}: expected a list of optimizers, got {shown(value)}")
    if len(value) > MOST_PARTS:
        raise ConfigError(f"{path}: {len(value)} optimizers; use up to {MOST_PARTS}")
    return tuple(create_part(each, f"{path}[{k}]") for k, each in enumerate(value))


def create_part(value: Any, path: str) -> Share:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected a JSON object, got {shown(value)}")
    options = dict(value)
    (field,) = (each for each in dataclasses.fields(Share) if each.type in (int, "int"))
    n_params = registry.convert(field, options.pop(field.name, 0), f"{path}.{field.name}")
    if n_params < 1:
        raise ConfigError(f"{path}.{field.name}: {n_params} is not allowed; use an integer from 1")
    return Share(n_params, create_nested(options, path))


@register("optimizer", "Composite")
@dataclass(frozen=True)
class Composite(AbstractOptimizer):
    """Nested optimizers of consecutive parts that cover all parameters.

    They share the rows of the state and of the matrices, and have scalars and hyperparams of their
    own. The learning rate is a factor for those of the parts.
    """

    learning_rate: float = 1.0
    nested: tuple[Share, ...] = dataclasses.field(default=(), metadata={"convert": create_parts})

    def __post_init__(self):
        rate = self.learning_rate
        check(0 <= rate < math.inf, "learning_rate", rate, "a finite number that is not negative")
        check(len(self.nested) > 0, "nested", self.nested, "a list of optimizers")

    touches_all_state = False  # the parts share the rows, and not all have as many

    @property
    def optimizers(self) -> tuple[AbstractOptimizer, ...]:
        return tuple(part.optimizer for part in self.nested)

    @property
    def structure(self) -> str:
        parts = (f"{each.n_params_to_optimize} {each.optimizer.structure}" for each in self.nested)
        return f"{self.otype}({', '.join(parts)})"

    @property
    def n_state(self):
        own = self.inference_row is not None
        return max(each.n_state for each in self.optimizers) + own

    @property
    def inference_row(self):
        if all(each.inference_row is None for each in self.optimizers):
            return None
        return max(each.n_state for each in self.optimizers)

    @property
    def n_scalars(self):
        return self.first_scalars[-1]

    @property
    def n_matrix_state(self):
        return max(each.n_matrix_state for each in self.optimizers)

    @property
    def least_bad_gradient(self):
        return min(each.least_bad_gradient for each in self.optimizers)

    @property
    def is_tame(self):
        return self.learning_rate <= 1 and all(each.is_tame for each in self.optimizers)

    @property
    def rates(self):
        return self._scalars_of_parts("rates")

    @property
    def decays(self):
        return self._scalars_of_parts("decays")

    def _scalars_of_parts(self, kind: str) -> tuple[int, ...]:
        parts = zip(self.first_scalars, self.optimizers, strict=False)
        return tuple(first + k for first, each in parts for k in getattr(each, kind))

    @property
    def first_scalars(self) -> list[int]:
        """First scalar of each part, and the end of the last one's."""
        return list(accumulate((each.n_scalars for each in self.optimizers), initial=0))

    def hyperparams(self) -> tuple[float, ...]:
        parts = (each.hyperparams() for each in self.optimizers)
        return *chain.from_iterable(parts), self.learning_rate

    def layouts(self, layout: ParamLayout) -> list[ParamLayout]:
        """Layout of each part."""
        first, first_matrix, layouts = layout.first, layout.first_matrix, []
        for part in self.nested:
            layouts.append(layout.part(first, part.n_params_to_optimize, first_matrix))
            first += part.n_params_to_optimize
            first_matrix += len(part.optimizer.matrix_ranges(layouts[-1]))
        if first != layout.first + layout.n_params:
            raise ConfigError(
                f"optimizer: the n_params_to_optimize of Composite add up to {first - layout.first}"
                f", and there are {layout.n_params} parameters to optimize"
            )
        return layouts

    def matrix_ranges(self, layout: ParamLayout) -> tuple[tuple[int, int], ...]:
        pairs = zip(self.optimizers, self.layouts(layout), strict=True)
        return tuple(chain.from_iterable(each.matrix_ranges(part) for each, part in pairs))

    def weight_rows(self, n_params: int) -> list[tuple[int, int, int]]:
        rows, shift = [], 0
        for part in self.nested:
            for row, first, last in part.optimizer.weight_rows(part.n_params_to_optimize):
                rows.append((row, shift + first, shift + last))
            shift += part.n_params_to_optimize
        own = self.inference_row
        return rows if own is None else [*rows, (own, 0, n_params)]

    def limits(self, layout, state, matrices, statistics):
        first = 0
        for optimizer, part, _ in self.with_layouts(layout):
            end = first + optimizer.n_statistics(part)
            yield from optimizer.limits(part, state, matrices, statistics[first:end])
            first = end

    @property
    def n_calls_to_begin(self) -> int:
        own = (each for each in self.optimizers if each.inference_row is not None)
        return min((each.n_calls_to_begin for each in own), default=1)

    @cached_property
    def schedule(self):
        rates, n_hyperparams = (*self.rates, *self.decays), self.n_hyperparams
        n_rates, parts, last = len(rates), nothing, 0
        for optimizer, first in zip(self.optimizers, self.first_scalars, strict=False):
            parts = then(parts, optimizer, last, first)
            last += optimizer.n_hyperparams

        @device
        def schedule(t, hyperparams, scalars):
            parts(t, hyperparams, scalars)
            for k in range(n_rates):
                scalars[rates[k]] *= hyperparams[n_hyperparams - 1]

        return schedule

    def _by_index(self, layout: ParamLayout, make, first: str = "first"):
        """Device function (i, ...): the function that `make` returns for index i's part."""
        functions = [make(*each) for each in self.with_layouts(layout)]
        return by_index(functions, [getattr(part, first) for part in self.layouts(layout)])

    def step(self, layout: ParamLayout):
        row = self.inference_row
        return self._by_index(layout, lambda *each: step_of_part(*each, row))

    def moves(self, layout: ParamLayout):
        if self.inference_row is not None:
            return super().moves(layout)
        return self._by_index(layout, lambda optimizer, part, _: optimizer.moves(part))

    def summand(self, layout: ParamLayout):
        return self._by_index(layout, summand_of_part)

    def matrix_step(self, layout: ParamLayout):
        return self._by_index(layout, matrix_step_of_part, "first_matrix")

    def n_statistics(self, layout: ParamLayout) -> int:
        return sum(each.n_statistics(part) for each, part, _ in self.with_layouts(layout))

    def preconditions(self, layout: ParamLayout) -> bool:
        return any(each.preconditions(part) for each, part, _ in self.with_layouts(layout))

    def precondition(self, operations, layout, state, matrices, statistics, scalars) -> None:
        first = 0
        for optimizer, part, first_scalar in self.with_layouts(layout):
            n_statistics = optimizer.n_statistics(part)
            if optimizer.preconditions(part):
                mine = operations.view(statistics, first, (n_statistics,))
                its_scalars = operations.view(scalars, first_scalar, (optimizer.n_scalars,))
                optimizer.precondition(operations, part, state, matrices, mine, its_scalars)
            first += n_statistics

    def with_layouts(self, layout: ParamLayout):
        """Optimizer, layout and first scalar of each part."""
        return zip(self.optimizers, self.layouts(layout), self.first_scalars, strict=False)

    def kernel_key(self) -> AbstractOptimizer:
        parts = tuple(replace(part, optimizer=part.optimizer.kernel_key()) for part in self.nested)
        return replace(self, learning_rate=0.0, nested=parts)


def then(before, optimizer: AbstractOptimizer, first_hyperparam: int, first_scalar: int):
    """Device function (t, hyperparams, scalars): run `before`, then a part's schedule."""
    schedule = optimizer.schedule
    last_hyperparam = first_hyperparam + optimizer.n_hyperparams
    last_scalar = first_scalar + optimizer.n_scalars

    @device
    def then(t, hyperparams, scalars):
        before(t, hyperparams, scalars)
        mine = hyperparams[first_hyperparam:last_hyperparam]
        schedule(t, mine, scalars[first_scalar:last_scalar])

    return then


def step_of_part(
    optimizer: AbstractOptimizer, layout: ParamLayout, first: int, inference_row: int | None
):
    step, for_inference = optimizer.step(layout), inference_weight(optimizer)
    last = first + optimizer.n_scalars
    keeps, row = inference_row is not None, inference_row or 0

    @device
    def step_of_part(i, w, g, state, scalars, matrices):
        w = step(i, w, g, state, scalars[first:last], matrices)
        if keeps:
            state[row, i] = for_inference(i, w, state)
        return w

    return step_of_part


def summand_of_part(optimizer: AbstractOptimizer, layout: ParamLayout, first: int):
    summand, last = optimizer.summand(layout), first + optimizer.n_scalars

    @device
    def summand_of_part(i, w, g, state, scalars):
        return summand(i, w, g, state, scalars[first:last])

    return summand_of_part


def matrix_step_of_part(optimizer: AbstractOptimizer, layout: ParamLayout, first: int):
    matrix_step, last = optimizer.matrix_step(layout), first + optimizer.n_scalars

    @device
    def matrix_step_of_part(m, total, matrices, scalars):
        matrix_step(m, total, matrices, scalars[first:last])

    return matrix_step_of_part


def by_index(functions: list, firsts: list[int]):
    """Device function (i, ...) that is functions[k] from i = firsts[k] on."""
    *before, chosen = functions
    for function, boundary in zip(reversed(before), reversed(firsts), strict=False):
        chosen = either(np.uintp(boundary), function, chosen)
    return chosen


def either(boundary, before, after):
    @device
    def either(i, *arguments):
        if np.uintp(i) < boundary:
            return before(i, *arguments)
        return after(i, *arguments)

    return either
