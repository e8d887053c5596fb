"""Division of a flat parameter vector, as optimizers see it."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import numpy as np

from numbanet.device import device
from numbanet.registry import ConfigError


@dataclass(frozen=True)
class ParamLayout:
    """Division of a flat parameter vector: matrices of networks, and the rest.

    It may be a part of a longer vector. Indices of parameters and matrices are that vector's.
    """

    n_params: int
    shapes: tuple[tuple[int, int], ...] = ()
    first: int = 0  # parameter
    first_matrix: int = 0
    starts: tuple[int, ...] | None = None  # of the matrices; None: side by side, before the rest
    names: tuple[tuple[str, int, int], ...] = ()  # of parts: first parameter, and last + 1
    boundary: int | None = None  # the first one that no network has; None: the first of no matrix

    @property
    def n_matrix_params(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    @property
    def aligned_param(self) -> int:
        """A parameter that lies at 16 bytes, in every array of the kernels."""
        return self.n_matrix_params if self.boundary is None else self.boundary

    @cached_property
    def matrix_ranges(self) -> tuple[tuple[int, int], ...]:
        """Range of each matrix, then of the other parameters: first parameter, and last + 1."""
        sizes = [rows * columns for rows, columns in self.shapes]
        starts = self.starts
        if starts is None:
            starts = tuple(accumulate(sizes[:-1], initial=self.first)) if sizes else ()
        matrices = [(start, start + n) for start, n in zip(starts, sizes, strict=True)]
        edges = [self.first, *chain.from_iterable(sorted(matrices)), self.first + self.n_params]
        others = [each for each in zip(edges[::2], edges[1::2], strict=True) if each[0] < each[1]]
        return *matrices, *others

    @property
    def named_ranges(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first parameter and last + 1 of parts; where none are given, of the matrices."""
        if self.names:
            return self.names
        ranges, n = self.matrix_ranges, len(self.shapes)
        matrices = [(f"network.{k}", *each) for k, each in enumerate(ranges[:n])]
        return *matrices, *(("encoding.params", *each) for each in ranges[n:])

    @cached_property
    def matrix_of(self):
        """Device function (i): the index of the matrix that parameter i belongs to."""
        in_order = sorted(range(len(self.matrix_ranges)), key=lambda m: self.matrix_ranges[m])
        starts = tuple(np.uintp(self.matrix_ranges[m][0]) for m in in_order) or (np.uintp(0),)
        numbers = tuple(np.uintp(self.first_matrix + m) for m in in_order) or (np.uintp(0),)
        n_ranges = len(in_order)

        @device
        def matrix_of(i):
            m = numbers[0]
            for k in range(1, n_ranges):
                if np.uintp(i) >= starts[k]:
                    m = numbers[k]
            return m

        return matrix_of

    @cached_property
    def is_matrix(self):
        """Device function (i): whether parameter i belongs to a matrix of a network."""
        is_matrix = nowhere
        for first, last in runs(sorted(self.matrix_ranges[: len(self.shapes)])):
            is_matrix = also_within(is_matrix, np.uintp(first), np.uintp(last))
        return is_matrix

    def part(self, first: int, n_params: int, first_matrix: int) -> "ParamLayout":
        """Layout of parameters [first, first + n_params), whose first matrix has that index.

        Raises:
            ConfigError: it would hold a part of a matrix.
        """
        ranges = self.matrix_ranges[: len(self.shapes)]
        for start, end in ranges:
            if start < first < end or start < first + n_params < end:
                raise ConfigError(
                    f"optimizer: parameters {first} to {first + n_params} cannot have an optimizer "
                    f"of their own, because {start} to {end} are one matrix"
                )
        within = [
            (shape, start)
            for shape, (start, _) in zip(self.shapes, ranges, strict=True)
            if first <= start < first + n_params
        ]
        shapes, starts = tuple(zip(*within, strict=True)) or ((), ())
        starts = None if self.starts is None else starts
        last = first + n_params
        names = tuple(each for each in self.names if first <= each[1] and each[2] <= last)
        return ParamLayout(n_params, shapes, first, first_matrix, starts, names, self.boundary)


@device
def nowhere(i):
    return False


def also_within(before, first, last):
    """Device function (i): the result of `before`, or whether i is in [first, last)."""

    @device
    def also_within(i):
        return before(i) | ((np.uintp(i) >= first) & (np.uintp(i) < last))

    return also_within


def runs(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges in order, with adjacent ones merged."""
    found = []
    for first, last in ranges:
        if found and found[-1][1] == first:
            found[-1] = found[-1][0], last
        else:
            found.append((first, last))
    return found
