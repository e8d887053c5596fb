"""Permutohedral: multiresolution lattices of simplices with trainable features, hashed.

A sample is in one simplex of each level and takes the features of its n_dims + 1 vertices, linearly
interpolated, where a grid has 2^n_dims corners: for 4 to 7 dimensions and more. A level of some
resolution has resolution^n_dims vertices in [0, 1]^n_dims, as a grid has. Levels are shifted at
random. Rosu and Behnke 2023, PermutoSDF: Fast Multi-View Reconstruction With Implicit Surfaces
Using Permutohedral Lattices.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.grid.encoding import FEATURES_PER_LEVEL, Grid, params_alone
from numbanet.encodings.grid.functions import GridFunctions
from numbanet.encodings.grid.tables import MAX_LEVELS
from numbanet.encodings.permutohedral import lattice, level, rows
from numbanet.random import Pcg32
from numbanet.registry import check, derived, register

MAX_DIMS = len(lattice.PRIMES)
MAX_RESOLUTION = 2**24
MOST_ENTRIES = 2**32 - 1
SEED = 1337  # of the shifts


@register("encoding", "Permutohedral")
@dataclass(frozen=True)
class Permutohedral(GridFunctions):
    n_dims: int = derived()
    n_levels: int = 16
    n_features_per_level: int = 2
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float = 1.5
    initial_range: float = 1e-4  # initial values are uniform in [-range, range)

    padding_value = 0.0
    begins_even = True  # among the parameters of a model
    stochastic_interpolation = has_edges = False
    n_derivatives = 1

    def __post_init__(self):
        n_dims, n_features, growth = self.n_dims, self.n_features_per_level, self.per_level_scale
        check(1 <= n_dims <= MAX_DIMS, "n_dims", n_dims, f"1 to {MAX_DIMS}")
        check(1 <= self.n_levels <= MAX_LEVELS, "n_levels", self.n_levels, f"1 to {MAX_LEVELS}")
        allowed = "1, 2, 4 or 8"
        check(n_features in FEATURES_PER_LEVEL, "n_features_per_level", n_features, allowed)
        log2_size, base = self.log2_hashmap_size, self.base_resolution
        check(0 <= log2_size <= 31, "log2_hashmap_size", log2_size, "0 to 31")
        check(1 <= base <= MAX_RESOLUTION, "base_resolution", base, f"1 to {MAX_RESOLUTION}")
        check(1 <= growth < math.inf, "per_level_scale", growth, "a number from 1")
        check(0 <= self.initial_range <= 1e30, "initial_range", self.initial_range, "0 to 1e30")
        finest = math.log2(base) + (self.n_levels - 1) * math.log2(growth)
        lower = f"less, or fewer levels: the finest resolution is above {MAX_RESOLUTION}"
        check(finest <= math.log2(MAX_RESOLUTION) + 1e-9, "per_level_scale", growth, lower)
        fewer = f"fewer, or smaller ones: there are more than {MOST_ENTRIES} table entries"
        check(self._ends[-1] <= MOST_ENTRIES, "n_levels", self.n_levels, fewer)

    @property
    def resolutions(self) -> list[float]:
        """Resolution of each level: vertices along an input, on average."""
        return [self.base_resolution * self.per_level_scale**k for k in range(self.n_levels)]

    @cached_property
    def _ends(self) -> list[int]:
        """End of each level's table, in entries."""
        ends, end = [], 0
        for resolution in self.resolutions:
            n_vertices = (math.ceil(resolution) + 2) ** self.n_dims  # with those around [0, 1]
            end += 1 << min(self.log2_hashmap_size, (n_vertices - 1).bit_length())
            ends.append(end)
        return ends

    @cached_property
    def levels(self) -> tuple[lattice.Level, ...]:
        shifts = Pcg32(SEED).uniform(self.n_levels * self.n_dims).reshape(self.n_levels, -1)
        unit = (self.n_dims + 1) ** (-0.5 / self.n_dims)  # which makes A's determinant 1
        return tuple(
            lattice.Level(
                scale=np.float32(resolution * unit),
                shifts=tuple(shifts[k]),
                offset=np.uint32(first),
                mask=np.uint32(end - first - 1),
            )
            for k, (resolution, first, end) in enumerate(
                zip(self.resolutions, [0, *self._ends], self._ends, strict=False)
            )
        )

    @property
    def grid_dims(self) -> tuple[int, ...]:
        return tuple(range(self.n_dims))

    @cached_property
    def level_ends(self) -> tuple[int, ...]:
        return tuple(end * self.n_features_per_level for end in self._ends)

    @property
    def partition_additions(self) -> tuple[int, ...]:
        """Additions per level: all vertices may share an entry."""
        return (self.n_corners,) * self.n_levels

    def placed(self, first_param):
        if (first_param % 2 == 0) == self.begins_even:
            return self
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return (OddPermutohedral if self.begins_even else Permutohedral)(**values)

    def initial_params(self, rng) -> np.ndarray:
        """Initial values as those of a grid."""
        return Grid.initial_params(self, rng)

    # Parts of the functions of grids.

    @property
    def n_corners(self) -> int:
        """Number of vertices of a simplex."""
        return self.n_dims + 1

    @property
    def entry(self):
        return lattice.entry(self.n_dims)

    @property
    def values(self):
        return params_alone

    @property
    def n_cell_numbers(self) -> int:
        """Coordinates of a simplex, and its turns."""
        return 2 * self.n_dims

    @property
    def n_factors(self) -> int:
        """Rests of the coordinates."""
        return self.n_dims

    @property
    def locate(self):
        return lattice.locate(self.n_dims)

    @property
    def write_weights_along(self):
        return lattice.weights_along(self.n_dims)

    write_weights = cached_property(level.weights)
    level_backward_input = cached_property(level.backward_input)
    level_double_backward_input = cached_property(level.double_backward_input)
    partition_forward_pairs = AbstractEncoding.partition_forward_pairs
    forward_rows = cached_property(rows.forward_rows)
    backward_params_rows = cached_property(rows.backward_params_rows)


@dataclass(frozen=True)
class OddPermutohedral(Permutohedral):
    """Lattices whose parameters begin at an odd index: features are accessed one by one."""

    begins_even = False
