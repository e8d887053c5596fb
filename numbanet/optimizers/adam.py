"""Adam, with the variants of tiny-cuda-nn: every parameter counts its own steps.

m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, and with k the number of steps of the parameter
w <- w - rate m / (sqrt(v) + epsilon), rate = learning_rate sqrt(1 - b2^k) / (1 - b1^k).
Kingma and Ba 2015; AdaBound: Luo et al. 2019; decay apart from the gradient: Loshchilov and Hutter
2019. Sparse parameters that got no gradient are left alone, momentum and count included.

With moments in bfloat16 a parameter keeps 8 bytes instead of 12, and a step moves 30 bytes, not 38.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ONE, ZERO, device, exp_minus_one, select
from numbanet.optimizers.base import (
    BOLD,
    AbstractOptimizer,
    ParamLayout,
    bounded_square,
    log_decay,
)
from numbanet.optimizers.limits import limits_of_moments
from numbanet.optimizers.packed_moments import pack_moments, packed, unpack_moments, unpacked
from numbanet.registry import check, choice, register, spelling

TINY = np.float32(1e-30)  # the least epsilon, for 0 / 0 where v is 0; less than any other root of v
MOMENTS = ("float32", "bfloat16")
FINAL_RATE = np.float32(0.1)  # of AdaBound


@register("optimizer", "Adam")
@dataclass(frozen=True)
class Adam(AbstractOptimizer):
    """Matrix parameters are the network's; the others are the encoding's, often a sparse grid."""

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    l2_reg: float = 1e-8
    adabound: bool = False
    relative_decay: float = 0.0
    absolute_decay: float = 0.0
    clipping_magnitude: float = 0.0  # of the weights; 0 clips nothing
    gradient_clipping_magnitude: float = 0.0
    non_matrix_learning_rate_factor: float = 1.0
    non_matrix_l2_reg: float = 0.0
    optimize_matrix_params: bool = True
    optimize_non_matrix_params: bool = True
    skip_zero_grad_non_matrix_params: bool = True
    moments: str = choice("float32", MOMENTS)  # or bfloat16: how m and v are kept

    def __post_init__(self):
        for option in ("beta1", "beta2"):
            value = getattr(self, option)
            check(0 <= value < 1, option, value, "a number in [0, 1)")
        for option in (
            "learning_rate",
            "epsilon",
            "l2_reg",
            "relative_decay",
            "absolute_decay",
            "clipping_magnitude",
            "gradient_clipping_magnitude",
            "non_matrix_learning_rate_factor",
            "non_matrix_l2_reg",
        ):
            value = getattr(self, option)
            check(0 <= value < math.inf, option, value, "a finite number that is not negative")
        object.__setattr__(self, "moments", spelling("moments", self.moments, MOMENTS))

    @property
    def has_halves(self) -> bool:
        """Whether m and v are packed in one number, see packed_moments.py."""
        return self.moments == "bfloat16"

    @property
    def n_state(self):  # m, v, k
        return 2 if self.has_halves else 3

    def state_of(self, m: np.ndarray, v: np.ndarray, k: np.ndarray) -> np.ndarray:
        """State of parameters with such moments and counts."""
        rows = (packed(m, v), k) if self.has_halves else (m, v, k)
        return np.array(rows, np.float32)

    @property
    def n_scalars(self):
        return 3 if self.adabound else 1

    @cached_property
    def schedule(self):
        rest2, adabound = np.float32(1 - self.beta2), self.adabound

        @device
        def schedule(t, hyperparams, scalars):
            scalars[0] = hyperparams[0]
            if adabound:  # the bounds of the effective learning rate
                progress = rest2 * np.float32(t)
                scalars[1] = FINAL_RATE - FINAL_RATE / (progress + ONE)
                scalars[2] = FINAL_RATE + FINAL_RATE / progress

        return schedule

    @property
    def is_tame(self):
        rate = self.learning_rate * max(self.non_matrix_learning_rate_factor, 1)
        decay = max(self.relative_decay, self.absolute_decay)
        is_normalized = self.adabound or self.beta1**2 <= self.beta2
        l2_reg = max(self.l2_reg, self.non_matrix_l2_reg)
        return rate <= BOLD and rate * decay <= 1 and l2_reg <= 1 and is_normalized

    def limits(self, layout, state, matrices, statistics):
        *moments, k = state[: self.n_state, layout.first : layout.first + layout.n_params]
        m, v = unpacked(moments[0]) if self.has_halves else moments
        yield "counts of steps", k, 0, math.inf
        yield from limits_of_moments(m, v, max(self.epsilon, TINY))

    def moves(self, layout: ParamLayout):
        in_matrix = layout.is_matrix
        matrix_moves, other_moves = self.optimize_matrix_params, self.optimize_non_matrix_params
        keeps_zeros = not self.skip_zero_grad_non_matrix_params

        @device
        def adam_moves(i, g):
            return select(in_matrix(i), matrix_moves, other_moves & (keeps_zeros | (g != ZERO)))

        return adam_moves

    def step(self, layout: ParamLayout):
        in_matrix, adam_moves = layout.is_matrix, self.moves(layout)
        factor = np.float32(self.non_matrix_learning_rate_factor)
        matrix_l2, other_l2 = np.float32(self.l2_reg), np.float32(self.non_matrix_l2_reg)
        beta1, beta2 = np.float32(self.beta1), np.float32(self.beta2)
        rest1, rest2 = np.float32(1 - self.beta1), np.float32(1 - self.beta2)
        log_beta1, log_beta2 = (np.float32(log_decay(beta)) for beta in (self.beta1, self.beta2))
        epsilon, adabound = max(np.float32(self.epsilon), TINY), self.adabound
        relative, absolute = np.float32(self.relative_decay), np.float32(self.absolute_decay)
        decays = relative > 0 or absolute > 0
        w_max, g_max = (
            np.float32(magnitude or math.inf)
            for magnitude in (self.clipping_magnitude, self.gradient_clipping_magnitude)
        )
        clips_w, clips_g = self.clipping_magnitude > 0, self.gradient_clipping_magnitude > 0
        load_moments, store_moments, k_row = *access_to_moments(self.has_halves), self.n_state - 1

        @device
        def adam(i, w, g, state, scalars, matrices):  # state [n_state, n_params]
            i = np.uintp(i)  # an unsigned index is not tested for counting from the end
            (m_before, v_before), k_before = load_moments(state, i), state[k_row, i]
            is_matrix = in_matrix(i)
            moves = adam_moves(i, g)

            g += select(is_matrix, matrix_l2, other_l2) * w
            if clips_g:
                g = min(max(g, -g_max), g_max)
            m = beta1 * m_before + rest1 * g
            v = beta2 * v_before + rest2 * bounded_square(g)
            k = k_before + ONE
            rate = scalars[0] * select(is_matrix, ONE, factor)
            rate *= math.sqrt(-exp_minus_one(log_beta2 * k)) / -exp_minus_one(log_beta1 * k)
            effective = rate / (math.sqrt(v) + epsilon)
            if adabound:
                effective = min(max(effective, scalars[1]), scalars[2])
            new = w - effective * m
            if decays:
                new -= rate * (relative * w + select(w < ZERO, -absolute, absolute))
            if clips_w:
                new = min(max(new, -w_max), w_max)

            store_moments(state, i, m, v, k, moves)
            state[k_row, i] = select(moves, k, k_before)
            return select(moves, new, w)

        return adam


def access_to_moments(has_halves: bool):
    """Device functions (state, i) -> (m, v), and (state, i, m, v, k, moves): store them, or not."""

    @device
    def load_packed(state, i):
        return unpack_moments(state[0, i])

    @device
    def store_packed(state, i, m, v, k, moves):
        state[0, i] = select(moves, pack_moments(m, v, i, k), state[0, i])

    @device
    def load(state, i):
        return state[0, i], state[1, i]

    @device
    def store(state, i, m, v, k, moves):
        state[0, i] = select(moves, m, state[0, i])
        state[1, i] = select(moves, v, state[1, i])

    return (load_packed, store_packed) if has_halves else (load, store)
