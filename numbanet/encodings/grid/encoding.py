"""Multiresolution grids of trainable features: hashed, dense or tiled.

Level l is a lattice of resolution ceil(scale_l) + 1 with scale_l = base * growth^l - 1; a sample
takes the features of the lattice cell around scale_l * x + 1/2, interpolated. A grid covers [0, 1]
in every dimension: inputs of another range are to be scaled to it, because beyond it places far
apart share entries. Müller et al. 2022, "Instant neural graphics primitives with a multiresolution
hash encoding". A list of `resolutions` takes the place of base_resolution and per_level_scale:
that of level l is then scale_l + 1. For a level it may be a list too, with one for each input.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from numbanet.device import device
from numbanet.encodings.grid import tables
from numbanet.encodings.grid.functions import GridFunctions
from numbanet.encodings.grid.indexing import (
    FAR,
    HASHED,
    HASHES,
    LINEAR,
    NEAR,
    Level,
    constant_limit,
    fixed_position,
    float_position,
    table_entry,
)
from numbanet.encodings.grid.interpolation import INTERPOLATIONS
from numbanet.encodings.grid.numbers import (
    numbered_level,
    numbered_limit,
    numbered_values,
    words,
)
from numbanet.quantization import COMPRESSIONS
from numbanet.registry import check, choice, create, derived, register, spelling

TYPES = {"Hash": "Hash", "Dense": "Dense", "Tiled": "Tiled", "Tile": "Tiled"}
FEATURES_PER_LEVEL = (1, 2, 4, 8)
MAX_DIMS = 7
FILLED_AT_ONCE = 2**16
# Common methods of indexing; a grid with only some of them is compiled alike.
USUAL_INDEXINGS = {
    "Hash": frozenset(map(int, (NEAR, HASHED))),
    "Dense": frozenset(map(int, (NEAR,))),
    "Tiled": frozenset(map(int, (NEAR, LINEAR))),
}


@register("encoding", "Grid")
@dataclass(frozen=True)
class Grid(GridFunctions):
    n_dims: int = derived()
    type: str = choice("Hash", TYPES)  # or Dense, Tiled
    n_levels: int | None = None  # 16 unless n_features is given
    n_features_per_level: int = 2
    n_features: int | None = None  # of all levels together, instead of n_levels
    n_grid_features: int | None = None  # another name of n_features
    log2_hashmap_size: int = 19
    base_resolution: int = 16
    per_level_scale: float | None = None  # 2; dense grids: what leads to resolution 256
    interpolation: str = choice("Linear", INTERPOLATIONS)  # or Smoothstep, Nearest
    stochastic_interpolation: bool = False
    hash: str = choice("CoherentPrime", HASHES)  # or Prime, ReversedPrime, Rng, BaseConvert
    compression: str = choice("None", COMPRESSIONS)  # of the tables: or Int8, OneBit
    fixed_point_pos: bool = False  # the bits of an input are an integer, in units of 2^-32
    resolutions: tuple | None = field(default=None, metadata=tables.RESOLUTIONS)  # of each level
    initial_range: float = 1e-4  # initial values are uniform in [-range, range); 0 for zeros

    padding_value = 0.0
    quantized = property(tables.quantized)
    per_axis = property(tables.per_axis)
    vertices = tables.vertices
    begins_even = True  # among the parameters of a model

    def __post_init__(self):
        n_dims, n_features = self.n_dims, self.n_features_per_level
        log2_size, base = self.log2_hashmap_size, self.base_resolution
        check(1 <= n_dims <= MAX_DIMS, "n_dims", n_dims, f"1 to {MAX_DIMS}")
        allowed = "1, 2, 4 or 8"
        check(n_features in FEATURES_PER_LEVEL, "n_features_per_level", n_features, allowed)
        check(0 <= log2_size <= 31, "log2_hashmap_size", log2_size, "0 to 31")
        check(1 <= base <= tables.MAX_RESOLUTION, "base_resolution", base, "1 or more")
        check(0 <= self.initial_range <= 1e30, "initial_range", self.initial_range, "0 to 1e30")
        self._resolve("type", TYPES[spelling("type", self.type, TYPES)])
        named = {"interpolation": INTERPOLATIONS, "hash": HASHES, "compression": COMPRESSIONS}
        for option, names in named.items():
            self._resolve(option, spelling(option, getattr(self, option), names))
        self._resolve_n_levels()
        if self.per_level_scale is None:
            self._resolve("per_level_scale", tables.default_growth(self))
        growth = self.per_level_scale
        is_positive = 0 < growth < math.inf and np.float32(growth) > 0
        check(is_positive, "per_level_scale", growth, "a number that is positive in float32")
        _ = self.levels  # raises where the tables are too large

    def _resolve(self, option, value):
        object.__setattr__(self, option, value)

    def _resolve_n_levels(self):
        per_level = self.n_features_per_level
        for option in ("n_features", "n_grid_features"):
            n_features = getattr(self, option)
            if n_features is not None:
                alone = "only one of n_levels, n_features and n_grid_features"
                check(self.n_levels is None, option, n_features, alone)
                is_multiple = n_features > 0 and n_features % per_level == 0
                check(is_multiple, option, n_features, f"a positive multiple of {per_level}")
                self._resolve("n_levels", n_features // per_level)
                self._resolve(option, None)
        if self.n_levels is None:
            self._resolve("n_levels", len(self.resolutions or range(16)))
        self._resolve("resolutions", tables.resolutions(self))
        most = tables.MAX_LEVELS
        check(1 <= self.n_levels <= most, "n_levels", self.n_levels, f"1 to {most}")

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        return tables.levels(self)

    @property
    def grid_dims(self) -> tuple[int, ...]:
        return () if self.fixed_point_pos else tuple(range(self.n_dims))

    @cached_property
    def level_ends(self) -> tuple[int, ...]:
        """End of each level's parameters."""
        ends = (int(level.offset) + int(level.size) for level in self.levels)
        return tuple(end * self.n_features_per_level for end in ends)

    @property
    def partition_additions(self) -> tuple[int, ...]:
        """Additions per level: all corners may share an entry, unless each vertex has its own."""
        return tuple(
            1 if math.prod(self.vertices(k)) <= level.size else self.n_corners
            for k, level in enumerate(self.levels)
        )

    def kernel_key(self):
        return NumberedGrid(
            n_dims=self.n_dims,
            n_levels=self.n_levels,
            n_features_per_level=self.n_features_per_level,
            interpolation=self.interpolation,
            stochastic_interpolation=self.stochastic_interpolation,
            hash=self.hash,
            fixed_point_pos=self.fixed_point_pos,
            per_axis=self.per_axis,
            indexings=self.indexings | USUAL_INDEXINGS[self.type],
        )

    @property
    def numbers(self):
        return tuple(word for level in self.levels for word in words(level, self.limit))

    def placed(self, first_param):
        if (first_param % 2 == 0) == self.begins_even:
            return self
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return (OddGrid if self.begins_even else Grid)(**values)

    def initial_params(self, rng) -> np.ndarray:
        """Uniform values in [-range, range), in the order of tiny-cuda-nn's device fill."""
        values, low = rng.device_uniform(self.n_params), np.float32(-self.initial_range)
        width = np.float32(self.initial_range) - low
        for block in np.split(values, range(FILLED_AT_ONCE, len(values), FILLED_AT_ONCE)):
            # There one fused multiply-add; in float64 product and sum are exact, and rounded once.
            block[...] = block.astype(np.float64) * np.float64(width) + low
        return values

    # Parts of the functions in functions.py.

    @cached_property
    def position(self):
        """(level, d, x) -> the cell of coordinate d, and the place in it."""
        if self.fixed_point_pos:
            return fixed_position(self.per_axis)
        return float_position(constant_limit(self.limit), self.per_axis)

    @property
    def limit(self) -> np.float32:
        """Largest input that is not clamped."""
        largest = max(np.max(level.scale) for level in self.levels)
        return FAR / np.float32(max(largest, 1))

    @property
    def values(self):
        """(params) -> the entries of the tables."""
        return params_alone

    @cached_property
    def entry(self):
        """(level, cell, corner) -> index of an entry, counted from the first of the level."""
        return table_entry(self.n_dims, self.hash, self.indexings, self.per_axis)

    @property
    def indexings(self) -> frozenset[int]:
        """Methods by which the levels find entries."""
        return frozenset(int(level.indexing) for level in self.levels)


@dataclass(frozen=True)
class OddGrid(Grid):
    """Grid whose parameters begin at an odd index: features are accessed one by one."""

    begins_even = False


@dataclass(frozen=True)
class NumberedGrid(Grid):
    """Stand-in for all grids that differ only in their tables: levels are read while a kernel runs.

    Sizes of tables in this class are placeholders.
    """

    log2_hashmap_size: int = 0
    base_resolution: int = 1
    per_level_scale: float = 1.0
    per_axis: bool = False
    indexings: frozenset[int] = frozenset()

    reads_numbers = True

    def __post_init__(self):
        """Skip the validation: all has been checked."""

    def kernel_key(self):
        return self

    @cached_property
    def level_constants(self):
        return numbered_level(self.n_dims if self.per_axis else 0)

    @cached_property
    def position(self):
        if self.fixed_point_pos:
            return fixed_position(self.per_axis)
        return float_position(numbered_limit, self.per_axis)

    @property
    def values(self):
        return numbered_values


@register("encoding", "HashGrid", "TiledGrid", "DenseGrid")
def typed_grid(given, *, name, path, **extra):
    """A Grid whose type follows from its name, unless it is given."""
    config = {"type": name.lower().removesuffix("grid"), **given, "otype": "Grid"}
    return create("encoding", config, default="Grid", path=path, **extra)


typed_grid.component = Grid


@device
def params_alone(params):
    return params
