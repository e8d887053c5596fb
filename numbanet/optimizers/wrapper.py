"""What optimizers have in common that change another one, the nested one."""

import dataclasses
from functools import cached_property
from typing import Any

from numbanet import registry
from numbanet.device import device
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout


def create_nested(value: Any, path: str) -> AbstractOptimizer:
    return registry.create("optimizer", value, default="Adam", path=path)


# Metadata of the field that holds the nested optimizer.
NESTED = {"convert": create_nested}


class AbstractWrapper(AbstractOptimizer):
    """Does what the nested optimizer does; subclasses change some of it.

    The nested optimizer's rows of the state and its scalars come first, then the wrapper's own.
    """

    nested: AbstractOptimizer
    n_own_state = 0
    keeps_weights = False  # in its own rows
    n_own_scalars = 0

    @property
    def structure(self) -> str:
        return f"{self.otype}({self.nested.structure})"

    @property
    def n_state(self):
        return self.nested.n_state + self.n_own_state

    @property
    def n_scalars(self):
        return self.nested.n_scalars + self.n_own_scalars

    @property
    def n_matrix_state(self):
        return self.nested.n_matrix_state

    @property
    def touches_all_state(self):
        return self.nested.touches_all_state

    @property
    def rates(self):
        return self.nested.rates

    @property
    def least_bad_gradient(self):
        return self.nested.least_bad_gradient

    @property
    def is_tame(self):
        return self.nested.is_tame

    @property
    def inference_row(self):
        return self.nested.inference_row

    @property
    def learning_rate(self) -> float:
        return self.nested.learning_rate

    def learning_rate_options(self, value: float) -> dict[str, Any]:
        return {"nested": self.nested.learning_rate_options(value)}

    def matrix_ranges(self, layout: ParamLayout) -> tuple[tuple[int, int], ...]:
        return self.nested.matrix_ranges(layout)

    def weight_rows(self, n_params: int) -> list[tuple[int, int, int]]:
        own = range(self.nested.n_state, self.n_state) if self.keeps_weights else ()
        return [*self.nested.weight_rows(n_params), *((row, 0, n_params) for row in own)]

    @property
    def n_calls_to_begin(self) -> int:
        return 1 if self.keeps_weights else self.nested.n_calls_to_begin

    def limits(self, layout, state, matrices, statistics):
        yield from self.nested.limits(layout, state, matrices, statistics)

    def hyperparams(self) -> tuple[float, ...]:
        return self.nested.hyperparams()

    @cached_property
    def schedule(self):
        return self.nested.schedule

    def step(self, layout: ParamLayout):
        return self.nested.step(layout)

    def summand(self, layout: ParamLayout):
        return self.nested.summand(layout)

    def matrix_step(self, layout: ParamLayout):
        return self.nested.matrix_step(layout)

    def n_statistics(self, layout: ParamLayout) -> int:
        return self.nested.n_statistics(layout)

    def precondition(self, operations, *arguments) -> None:
        self.nested.precondition(operations, *arguments)

    def kernel_key(self) -> AbstractOptimizer:
        return dataclasses.replace(self, nested=self.nested.kernel_key())


def inference_weight(optimizer: AbstractOptimizer):
    """Device function (i, w, state): the weight for inference after a step that returned w."""
    row = optimizer.inference_row
    if row is None:
        return trained_weight

    @device
    def inference_weight(i, w, state):
        return state[row, i]

    return inference_weight


@device
def trained_weight(i, w, state):
    return w
