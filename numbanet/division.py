"""Division of the optimizer's work on the parameters among ranks.

Where each parameter is stepped by itself, the ranks share the work and the state: gradients are
summed in parts, each rank steps one, and the parameters are told to all. Else every rank steps
all: where the numbers of a whole matrix are needed, where the state has the weights for inference,
and in models so small that one exchange takes less time than two.
"""

from dataclasses import dataclass

from numbanet.communicator import Communicator, even_bounds
from numbanet.optimizers.base import AbstractOptimizer, ParamLayout


@dataclass(frozen=True)
class Division:
    """Bounds of the ranks' parts, or None where every rank steps all n_params."""

    n_params: int
    rank: int = 0
    bounds: tuple[int, ...] | None = None

    @property
    def own(self) -> tuple[int, int]:
        """Range of the parameters that this rank steps: the first, and the end."""
        if self.bounds is None:
            return 0, self.n_params
        return self.bounds[self.rank], self.bounds[self.rank + 1]

    def own_part(self, row: int, first: int, last: int) -> tuple[int, int, int]:
        """This rank's part of [first, last) in a row of the state; empty ranges included."""
        begin, end = self.own
        first = min(max(first, begin), end)
        return row, first, max(first, min(last, end))


def divide(
    optimizer: AbstractOptimizer, layout: ParamLayout, comm: Communicator, quantum: int, least: int
) -> Division:
    """Division of a layout into parts of multiples of `quantum` parameters.

    Args:
        least: models with fewer parameters are not divided.
    """
    n, n_ranks = layout.n_params, comm.size
    each_alone = optimizer.n_matrix_state == 0 and not optimizer.preconditions(layout)
    if n_ranks == 1 or n < least or not each_alone or optimizer.inference_row is not None:
        return Division(n)
    return Division(n, comm.rank, even_bounds(n, n_ranks, quantum))
