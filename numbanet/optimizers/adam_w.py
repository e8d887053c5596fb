"""AdamW: Adam, with weight decay that no moment sees.

w <- w - learning_rate (m' / (sqrt(v') + epsilon) + weight_decay w), with the moments m' and v' of
Adam without their initial bias. Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization.
Adam's `relative_decay`, as in tiny-cuda-nn, decays by the rate with its correction for that bias.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import device, select
from numbanet.forwarding import forwarding
from numbanet.optimizers.adam import Adam
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout
from numbanet.registry import check, register


@register("optimizer", "AdamW")
@dataclass(frozen=True)
class AdamW(forwarding("adam", "n_state schedule limits moves"), AbstractOptimizer):
    """Parameters that Adam does not update, such as entries without a gradient, do not decay."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01  # of the matrices
    non_matrix_weight_decay: float = 0.0
    non_matrix_learning_rate_factor: float = 1.0
    optimize_matrix_params: bool = True
    optimize_non_matrix_params: bool = True
    skip_zero_grad_non_matrix_params: bool = True

    def __post_init__(self):
        _ = self.adam  # checks the options that are its own
        for option in ("weight_decay", "non_matrix_weight_decay"):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")

    @cached_property
    def adam(self) -> Adam:
        return Adam(
            learning_rate=self.learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            l2_reg=0.0,
            non_matrix_learning_rate_factor=self.non_matrix_learning_rate_factor,
            optimize_matrix_params=self.optimize_matrix_params,
            optimize_non_matrix_params=self.optimize_non_matrix_params,
            skip_zero_grad_non_matrix_params=self.skip_zero_grad_non_matrix_params,
        )

    @property
    def is_tame(self):
        rate = self.learning_rate * max(self.non_matrix_learning_rate_factor, 1)
        decay = max(self.weight_decay, self.non_matrix_weight_decay)
        return self.adam.is_tame and rate * decay <= 1

    def step(self, layout: ParamLayout):
        adam, moves = self.adam.step(layout), self.moves(layout)
        in_matrix = layout.is_matrix
        matrix_decay = np.float32(self.weight_decay)
        other_decay = np.float32(
            self.non_matrix_learning_rate_factor * self.non_matrix_weight_decay
        )

        @device
        def adam_w(i, w, g, state, scalars, matrices):
            decay = scalars[0] * select(in_matrix(i), matrix_decay, other_decay)
            decayed = adam(i, w, g, state, scalars, matrices) - decay * w
            return select(moves(i, g), decayed, w)

        return adam_w
