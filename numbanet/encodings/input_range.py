"""Base of encodings that read a range of the inputs."""

from functools import cached_property

from numbanet.device import ZERO, device
from numbanet.encodings.wrapper import AbstractWrapper


class AbstractInputRange(AbstractWrapper):
    """Wrapper whose `encoding` reads the inputs from first_dim on, of n_dims."""

    first_dim: int

    @property
    def dims(self) -> tuple[int, int]:
        """Range of the encoding's inputs: the first, and the last + 1."""
        return self.first_dim, self.first_dim + self.encoding.n_dims

    @cached_property
    def clear(self):
        """Device function (dl_dx): zeros for the gradient of the inputs that it does not read."""
        (first, stop), n_dims = self.dims, self.n_dims

        @device
        def clear(dl_dx):
            for d in range(first):
                dl_dx[d] = ZERO
            for d in range(stop, n_dims):
                dl_dx[d] = ZERO

        return clear

    @cached_property
    def within(self):
        """Device function (a): index of input a among those of the encoding, -1 for none."""
        first = self.first_dim

        @device
        def within(a):
            return a - first if a >= 0 else a

        return within

    @cached_property
    def reads(self):
        """Device function (a, b): whether a derivative by these inputs need not be 0."""
        first, stop = self.dims

        @device
        def reads(a, b):
            return (a < 0 or first <= a < stop) and (b < 0 or first <= b < stop)

        return reads
