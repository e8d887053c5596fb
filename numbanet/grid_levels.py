"""Levels of a model's grids: views of their tables, read and written as lattices too."""

import math
from typing import Any

import numpy as np

from numbanet.array_types import Array
from numbanet.cpu.grid_vertices import entries_of_vertices
from numbanet.encodings.grid import Grid
from numbanet.encodings.grid.indexing import HASHED
from numbanet.shown import shown

MOST_VERTICES = 1 << 27  # of a level that is read or written as a lattice


def one_or_all(numbers: tuple) -> Any:
    """Single value of equal numbers; the tuple itself where they differ."""
    return numbers if len(set(numbers)) > 1 else numbers[0]


class GridLevel:
    """Level of a grid; made by a model's `levels`.

    Attributes:
        name: such as "encoding.levels.3"; that of a part of the parameters.
        offset: of its first parameter, in the vector of all.
        size: entries of its table.
        resolution: vertices along each dimension; a tuple of them where these differ.
        scale: cells per unit of the inputs, one or several too: vertex i lies at (i - 1/2) / scale.
        n_features: of each entry.
    """

    def __init__(self, model: Any, name: str, grid: Grid, k: int, first_param: int):
        level = grid.levels[k]
        self.name, self._model, self._grid, self._k = name, model, grid, k
        self.size, self.n_features = int(level.size), grid.n_features_per_level
        self.resolution = one_or_all(grid.vertices(k))
        self._scales = np.broadcast_to(level.scale, grid.n_dims).tolist()
        self.scale = one_or_all(tuple(self._scales))
        self.offset = first_param + int(level.offset) * self.n_features

    def __repr__(self) -> str:
        return f"<{self.name}: resolution {self.resolution}, {self.size} x {self.n_features}>"

    @property
    def n_params(self) -> int:
        """Number of parameters of the level."""
        return self.size * self.n_features

    @property
    def is_hashed(self) -> bool:
        """Whether vertices share entries by a hash."""
        return bool(self._grid.levels[self._k].indexing == HASHED)

    def _view(self, flat: Any) -> Any:
        return flat[self.offset : self.offset + self.n_params].reshape(self.size, self.n_features)

    @property
    def params(self) -> Array:
        """The level's table, float32 [size, n_features]; writing to it changes the model."""
        return self._view(self._model.params)

    @property
    def gradients(self) -> Array:
        """Gradient of the level's table, [size, n_features]."""
        return self._view(self._model.gradients)

    def vertices(self, dim: int = 0) -> np.ndarray:
        """Coordinates of the vertices along a dimension, [resolution]; some beyond [0, 1].

        Raises:
            ValueError: there is no such dimension.
        """
        resolutions = self._grid.vertices(self._k)
        n_dims = len(resolutions)
        if not isinstance(dim, (int, np.integer)) or not -n_dims <= dim < n_dims:
            raise ValueError(f"dim: {shown(dim)} is no input; use 0 to {n_dims - 1}")
        n = resolutions[dim]
        return (np.arange(n) - 0.5) / max(self._scales[dim], 1e-30)

    def _entries(self) -> np.ndarray:
        n = math.prod(self._grid.vertices(self._k))
        if n > MOST_VERTICES:
            raise ValueError(
                f"{self.name}: has {n} vertices, more than {MOST_VERTICES}; use its params"
            )
        return entries_of_vertices(self._grid, self._k)

    def read(self) -> np.ndarray:
        """Features of all vertices, float32 [resolution, ..., n_features], a copy.

        There is an axis for each input, in their order.

        Raises:
            ValueError: there are more than 2^27 vertices.
        """
        return self._model.target.to_host(self.params)[self._entries()]

    def write(self, values: Any) -> None:
        """Set the features of all vertices, as `read` gives them.

        Vertices that share an entry give it their mean; entries that no vertex has stay.

        Raises:
            ValueError: the values have another shape, are no finite numbers, or there are more
                than 2^27 vertices.
        """
        shape = (*self._grid.vertices(self._k), self.n_features)
        try:
            values = np.asarray(values)
            if values.dtype.kind == "c":
                raise TypeError("complex")
            with np.errstate(over="ignore"):  # large values become infinite, and are refused below
                values = values.astype(np.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(f"values: {shown(values)} are no real numbers") from error
        if values.shape != shape:
            raise ValueError(f"values: expected shape {list(shape)}, got {list(values.shape)}")
        if not np.isfinite(values).all():
            raise ValueError("values: some are infinite or NaN; use finite numbers")
        entries = self._entries().ravel()
        params, rows = self.params, values.reshape(-1, self.n_features)
        table = np.array(self._model.target.to_host(params))
        counts = np.bincount(entries, minlength=self.size)
        for f in range(self.n_features):
            sums = np.bincount(entries, rows[:, f], self.size)
            table[counts > 0, f] = (sums / np.maximum(counts, 1))[counts > 0]
        self._model.target.copy_from_host(params, table)


def levels_of(model: Any) -> tuple[GridLevel, ...]:
    """Levels of all grids of a model, coarse to fine."""
    return tuple(
        GridLevel(model, f"{prefix}levels.{k}", grid, k, first)
        for prefix, grid, first in model.composition.grids
        for k in range(grid.n_levels)
    )
