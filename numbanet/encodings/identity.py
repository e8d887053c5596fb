"""Identity: y = scale x + offset."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.device import ZERO, device
from numbanet.encodings.base import ElementwiseEncoding
from numbanet.registry import check, derived, register


@register("encoding", "Identity")
@dataclass(frozen=True)
class Identity(ElementwiseEncoding):
    """Passes the inputs on, scaled and shifted."""

    n_dims: int = derived()
    scale: float = 1.0
    offset: float = 0.0

    n_features = 1

    def __post_init__(self):
        check(math.isfinite(self.scale), "scale", self.scale, "a finite number")
        check(math.isfinite(self.offset), "offset", self.offset, "a finite number")

    @cached_property
    def feature(self):
        scale, offset = np.float32(self.scale), np.float32(self.offset)

        @device
        def identity(x, k):
            return scale * x + offset, scale, ZERO

        return identity
