"""Empty: no features at all; it only takes inputs, and padding where it is the one to be padded."""

from dataclasses import dataclass
from functools import cached_property

from numbanet.device import ZERO, device
from numbanet.encodings.base import AbstractEncoding
from numbanet.registry import derived, register


@register("encoding", "Empty")
@dataclass(frozen=True)
class Empty(AbstractEncoding):
    """Encoding without features."""

    n_dims: int = derived()

    n_derivatives = 2

    @property
    def n_outputs(self):
        return 0

    @cached_property
    def forward(self):
        @device
        def empty(x, params, y):  # x [n_dims], y [0]
            return

        return empty

    @cached_property
    def backward_input(self):
        n_dims = self.n_dims

        @device
        def empty_backward(x, params, dl_dy, dl_dx):
            for d in range(n_dims):
                dl_dx[d] = ZERO

        return empty_backward

    @cached_property
    def double_backward_input(self):
        n_dims = self.n_dims

        @device
        def empty_double_backward(x, params, dl_dy, dl_ddx, dl_ddy, dl_dx):
            for d in range(n_dims):
                dl_dx[d] = ZERO

        return empty_double_backward

    @cached_property
    def add_partial(self):
        @device
        def empty_add_partial(x, params, a, b, y):
            return

        return empty_add_partial
