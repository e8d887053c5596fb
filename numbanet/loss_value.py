"""Result of a training step: a number that is read on demand."""

import math
from numbers import Real
from typing import Any

import numpy as np

from numbanet.caller import warn_caller
from numbanet.grid_range import GridRange

SKIPPED = "the inputs, the loss or a gradient are infinite or NaN; the step was skipped"


class Loss(Real):
    """Loss of a training step: the mean over the batch and the output dimensions.

    It can be used as a number (`loss < 0.1`, `numpy.mean(losses)`); `float(loss)` makes a float. On
    a GPU the host waits for the step when it is first used, and learns whether it was skipped.
    Without targets, as with `external_dl_dy` alone, no loss is computed, and it is 0.
    """

    __slots__ = ("_grid_range", "_has_targets", "_is_external", "_result", "_warns")

    def __init__(
        self,
        result: Any,
        grid_range: GridRange,
        warns: bool,
        has_targets: bool = True,
        is_external: bool = False,
    ):
        self._result, self._grid_range, self._warns = result, grid_range, warns
        self._has_targets, self._is_external = has_targets, is_external

    def __float__(self) -> float:
        result = self._result.read()
        self._grid_range.check()
        if result.skipped and self._warns:
            self._warns = False
            warn_caller(SKIPPED, RuntimeWarning)
        return result.loss if self._has_targets else 0.0

    def item(self) -> float:
        """Value as a float."""
        return float(self)

    def __repr__(self) -> str:
        if not self._has_targets:
            return "Loss(0, without targets; the gradient was external_dl_dy)"
        more = ", of the targets; the gradient was external_dl_dy" if self._is_external else ""
        return f"Loss({float(self):g}{more})"

    def __format__(self, specification: str) -> str:
        return format(float(self), specification)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a loss cannot become an array without a copy")
        return np.array(float(self), dtype)

    # The rest behaves as a float.

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(float(self))

    def __eq__(self, other: Any) -> Any:
        return float(self) == other

    def __lt__(self, other: Any) -> Any:
        return float(self) < other

    def __le__(self, other: Any) -> Any:
        return float(self) <= other

    def __gt__(self, other: Any) -> Any:
        return float(self) > other

    def __ge__(self, other: Any) -> Any:
        return float(self) >= other

    def __add__(self, other: Any) -> Any:
        return float(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + float(self)

    def __sub__(self, other: Any) -> Any:
        return float(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - float(self)

    def __mul__(self, other: Any) -> Any:
        return float(self) * other

    def __rmul__(self, other: Any) -> Any:
        return other * float(self)

    def __truediv__(self, other: Any) -> Any:
        return float(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / float(self)

    def __floordiv__(self, other: Any) -> Any:
        return float(self) // other

    def __rfloordiv__(self, other: Any) -> Any:
        return other // float(self)

    def __mod__(self, other: Any) -> Any:
        return float(self) % other

    def __rmod__(self, other: Any) -> Any:
        return other % float(self)

    def __pow__(self, other: Any) -> Any:
        return float(self) ** other

    def __rpow__(self, other: Any) -> Any:
        return other ** float(self)

    def __neg__(self) -> float:
        return -float(self)

    def __pos__(self) -> float:
        return float(self)

    def __abs__(self) -> float:
        return abs(float(self))

    def __trunc__(self) -> int:
        return math.trunc(float(self))

    def __int__(self) -> int:
        return int(float(self))

    def __floor__(self) -> int:
        return math.floor(float(self))

    def __ceil__(self) -> int:
        return math.ceil(float(self))

    def __round__(self, n_digits: int | None = None) -> Any:
        return round(float(self), n_digits)
