"""Losses of many models, which are read on demand."""

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from numbanet.caller import warn_caller
from numbanet.many_training import ManyResult

MOST_NAMED = 8  # models that skipped a step


class Losses(NDArrayOperatorsMixin):
    """Losses of a training step of many models, float64 [n_models].

    Used as a NumPy array is (`losses.argmin()`, `losses < 0.1`, `numpy.mean(losses)`), which waits
    for the step, and tells which models skipped it.
    """

    __slots__ = {  # with texts for help()
        "shape": "(n_models,)",
        **dict.fromkeys(("_result", "_warns")),
    }

    def __init__(self, result: ManyResult, n: int):
        self._result, self.shape, self._warns = result, (n,), True

    def numpy(self) -> np.ndarray:
        """Losses as a NumPy array."""
        losses, are_stepped = self._result.read()
        if self._warns:
            self._warns = False
            warn_of_skipped(are_stepped)
        return losses

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("losses cannot become an array without a copy")
        return np.array(self.numpy(), dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        values = (each.numpy() if isinstance(each, Losses) else each for each in inputs)
        return getattr(ufunc, method)(*values, **options)

    def __getattr__(self, name: str) -> Any:
        """Attribute of the losses as an array; waits for the step."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.numpy(), name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> Any:
        return self.numpy()[which]

    def __repr__(self) -> str:
        return f"Losses({np.array2string(self.numpy(), separator=', ')})"


def warn_of_skipped(are_stepped: np.ndarray) -> None:
    """Warn of the models that skipped a step, if any."""
    if not are_stepped.all():
        numbers = np.flatnonzero(~are_stepped)
        warn_caller(
            f"the inputs, the loss or a gradient of {len(numbers)} models are infinite or NaN "
            f"({', '.join(map(str, numbers[:MOST_NAMED]))}); they skipped the step",
            RuntimeWarning,
        )
