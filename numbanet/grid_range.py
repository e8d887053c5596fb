"""Warning where most inputs lie outside [0, 1], the range that a grid covers."""

from typing import Any

import numpy as np

from numbanet.caller import warn_caller
from numbanet.target import AbstractTarget

MOST = 0.45  # a half, but for chance: of inputs in [-1, 1], a half lies outside in one dimension


class GridRange:
    """Sample of the first inputs that grids are trained with, checked later.

    So a GPU is not waited for: its sample is looked at when a loss is read.

    Args:
        dims: the inputs that are read by grids.
        target: where inputs are.
    """

    def __init__(self, dims: tuple[int, ...], target: AbstractTarget):
        self._dims, self._target = list(dims), target
        self._is_open, self._sample = bool(self._dims), None

    def take(self, inputs: Any) -> None:
        """Keep a sample of these inputs, if they are the first ones."""
        if self._is_open and len(inputs):
            self._is_open = False
            self._sample = self._target.sampled(inputs)

    def close(self) -> None:
        """Take no sample: the training was resumed."""
        self._is_open = False

    def check(self) -> None:
        """Warn about the sample, once."""
        if self._sample is None:
            return
        x, self._sample = self._target.to_host(self._sample)[:, self._dims], None
        share = ((x < 0) | (x > 1)).any(axis=1).mean()
        if share >= MOST:
            warn_caller(
                f"{share:.0%} of the inputs lie outside [0, 1], which is what a grid covers in "
                f"every dimension; here they go from {np.min(x):.3g} to {np.max(x):.3g}: scale them"
            )
