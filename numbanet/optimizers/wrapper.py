"""Base of optimizers that modify another one, the nested one."""

import dataclasses
from typing import Any

from numbanet import registry
from numbanet.device import device
from numbanet.forwarding import forwarding
from numbanet.optimizers.base import AbstractOptimizer


def create_nested(value: Any, path: str) -> AbstractOptimizer:
    return registry.create("optimizer", value, default="Adam", path=path)


# Metadata of the field that holds the nested optimizer.
NESTED = {"convert": create_nested}


PASSED_ON = """
    n_matrix_state touches_all_state rates decays least_bad_gradient is_tame inference_row
    learning_rate matrix_ranges limits hyperparams schedule step summand matrix_step n_statistics
    preconditions precondition
"""


class AbstractWrapper(forwarding("nested", PASSED_ON), AbstractOptimizer):
    """Optimizer that delegates to the nested one; subclasses change some of it.

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

    def learning_rate_options(self, value: float) -> dict[str, Any]:
        return {"nested": self.nested.learning_rate_options(value)}

    def weight_rows(self, n_params: int) -> list[tuple[int, int, int]]:
        own = range(self.nested.n_state, self.n_state) if self.keeps_weights else ()
        return [*self.nested.weight_rows(n_params), *((row, 0, n_params) for row in own)]

    @property
    def n_calls_to_begin(self) -> int:
        return 1 if self.keeps_weights else self.nested.n_calls_to_begin

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
