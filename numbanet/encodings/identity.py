"""Identity: y = scale x + offset."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device
from numbanet.encodings.base import AbstractEncoding
from numbanet.registry import check, derived, register


@register("encoding", "Identity")
@dataclass(frozen=True)
class Identity(AbstractEncoding):
    """Passes the inputs on, scaled and shifted."""

    n_dims: int = derived()
    scale: float = 1.0
    offset: float = 0.0

    def __post_init__(self):
        check(math.isfinite(self.scale), "scale", self.scale, "a finite number")
        check(math.isfinite(self.offset), "offset", self.offset, "a finite number")

    @property
    def n_outputs(self):
        return self.n_dims

    @cached_property
    def forward(self):
        n_dims, scale, offset = self.n_dims, np.float32(self.scale), np.float32(self.offset)

        @device
        def identity(x, params, y):  # x [n_dims], y [n_dims]
            for d in range(n_dims):
                y[d] = scale * x[d] + offset

        return identity

    @cached_property
    def backward_input(self):
        n_dims, scale = self.n_dims, np.float32(self.scale)

        @device
        def identity_backward(x, params, dl_dy, dl_dx):
            for d in range(n_dims):
                dl_dx[d] = scale * dl_dy[d]

        return identity_backward

    @cached_property
    def double_backward_input(self):
        n_dims, scale = self.n_dims, np.float32(self.scale)

        @device
        def identity_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            for d in range(n_dims):
                dl_ddy[d] = scale * dl_ddx[d]
                dl_dx[d] = ZERO

        return identity_double_backward
