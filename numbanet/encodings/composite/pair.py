"""Two encodings of the same inputs, combined into one; longer lists are pairs of pairs."""

import math
from dataclasses import dataclass

import numpy as np

from numbanet.device import nothing
from numbanet.encodings.base import AbstractEncoding


@dataclass(frozen=True)
class AbstractPair(AbstractEncoding):
    """The parameters of `left` come first; the gradients of the inputs add up."""

    left: AbstractEncoding
    right: AbstractEncoding

    @property
    def n_dims(self):
        return self.left.n_dims

    @property
    def n_params(self):
        return self.left.n_params + self.right.n_params

    @property
    def required_output_alignment(self):
        return math.lcm(self.left.required_output_alignment, self.right.required_output_alignment)

    def placed(self, first_param):
        right = self.right.placed(first_param + self.left.n_params)
        return type(self)(self.left.placed(first_param), right)

    def initial_params(self, rng):
        return np.concatenate([self.left.initial_params(rng), self.right.initial_params(rng)])

    def of_both(self, name: str) -> tuple:
        """The functions of that name, of which encodings without parameters may have none."""
        return tuple(getattr(encoding, name) or nothing for encoding in (self.left, self.right))
