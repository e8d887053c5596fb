"""Resizing of a model's grid: larger or smaller tables, more or fewer levels, features kept."""

import dataclasses
import math
from typing import Any

import numpy as np

from numbanet.cpu.grid_vertices import entries_of_vertices
from numbanet.encoding_model import Encoding
from numbanet.encodings.grid import Grid
from numbanet.encodings.grid.indexing import HASHED
from numbanet.grid_levels import MOST_VERTICES
from numbanet.model import AbstractModel
from numbanet.model_arguments import initial_rng
from numbanet.network_with_input_encoding import NetworkWithInputEncoding
from numbanet.part_components import padded_encoding_width
from numbanet.registry import ConfigError
from numbanet.shown import shown


def resize_grid(
    model: AbstractModel,
    *,
    log2_hashmap_size: int | None = None,
    n_levels: int | None = None,
    seed: int = 1337,
) -> Any:
    """Make a model like this one, with another size of the hash tables, or other levels.

    A table that grows is repeated, so that the model computes what it did; one that shrinks has the
    means of what its entries were. Levels that are added are zeros, and their weights in a network
    are initial ones; those that are taken away are the finest. Optimizers start anew.

    Args:
        model: a network with a grid as its encoding, or a grid by itself, without padding.
        log2_hashmap_size: of the new model; None to keep it.
        n_levels: of the new model; None to keep it.
        seed: of the weights for new levels.

    Returns:
        A model of the same class, on the same device.

    Raises:
        TypeError: the model is none of these.
        ConfigError: a size is not allowed.
    """
    known = isinstance(model, Encoding | NetworkWithInputEncoding)
    grid = model.encoding if known else None
    if not isinstance(grid, Grid) or (isinstance(model, Encoding) and model.alignment):
        what = f"{type(model).__name__} of {type(grid).__name__}" if known else shown(model)
        hint = "; use its network" if hasattr(model, "network") and not known else ""
        raise TypeError(
            f"model: expected a network with a grid, or a grid without padding, got {what}{hint}"
        )
    new = changed(grid, log2_hashmap_size, n_levels)
    old_params = model.target.to_host(model.params)
    network = getattr(model, "network", None)
    n_weights = 0 if network is None else network.n_params
    table = resized_table(grid, new, old_params[n_weights:])
    if network is None:
        made = Encoding(new, initial_rng(seed, "bindings"), model.target)
        made.params = table
    else:
        width = padded_encoding_width(new, 16)
        wider = dataclasses.replace(network, n_input_dims=width)
        made = type(model)(new, wider, initial_rng(seed, "bindings"), model.target)
        weights = np.array(made.target.to_host(made.params)[: wider.n_params])
        take_weights(weights, old_params[:n_weights], network, wider, (grid, new))
        made.params = np.concatenate([weights, table])
    made.deterministic = model.deterministic
    return made


def changed(grid: Grid, log2_hashmap_size: int | None, n_levels: int | None) -> Grid:
    """Grid with other sizes."""
    options: dict[str, Any] = {}
    for name, value in (("log2_hashmap_size", log2_hashmap_size), ("n_levels", n_levels)):
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise ConfigError(f"{name}: expected int, got {shown(value)}")
            options[name] = int(value)
    if log2_hashmap_size is not None and grid.type != "Hash":
        raise ConfigError(
            f"log2_hashmap_size: a grid of type {grid.type} has no hash tables; leave it out"
        )
    if n_levels is not None and grid.resolutions is not None:
        if options["n_levels"] > grid.n_levels:
            raise ConfigError("n_levels: a grid with a list of resolutions cannot have more")
        options["resolutions"] = grid.resolutions[: options["n_levels"]]
    return dataclasses.replace(grid, **options)


def resized_table(old: Grid, new: Grid, params: np.ndarray) -> np.ndarray:
    """Tables of the new grid, flat."""
    width, found = old.n_features_per_level, np.zeros(new.n_params, np.float32)
    of_old, of_new = params.reshape(-1, width), found.reshape(-1, width)
    for k, (before, after) in enumerate(zip(old.levels, new.levels, strict=False)):
        source, to = (
            rows[int(level.offset) : int(level.offset) + int(level.size)]
            for rows, level in ((of_old, before), (of_new, after))
        )
        to[...] = resized_level(old, new, k, source)
    return found


def resized_level(old: Grid, new: Grid, k: int, source: np.ndarray) -> np.ndarray:
    """Table of one level, [entries, features]."""
    before, after = old.levels[k], new.levels[k]
    n_old, n_new = int(before.size), int(after.size)
    if before == after._replace(offset=before.offset):
        return source
    if before.indexing == after.indexing == HASHED:  # sizes are powers of two
        if n_new >= n_old:
            return np.tile(source, (n_new // n_old, 1))
        return source.reshape(n_old // n_new, n_new, -1).mean(axis=0)
    if math.prod(old.vertices(k)) > MOST_VERTICES:
        raise ConfigError(f"log2_hashmap_size: level {k} has more than {MOST_VERTICES} vertices")
    from_entries, to_entries = (entries_of_vertices(grid, k).ravel() for grid in (old, new))
    counts, values = np.bincount(to_entries, minlength=n_new), np.zeros((n_new, source.shape[1]))
    for f in range(source.shape[1]):
        values[:, f] = np.bincount(to_entries, source[from_entries, f], n_new)
    return values / np.maximum(counts, 1)[:, None]


def take_weights(
    weights: np.ndarray, before: np.ndarray, old: Any, new: Any, grids: tuple[Grid, Grid]
) -> None:
    """Copy the old weights of features that remain."""
    rows, old_columns = old.shapes[0]
    columns = new.shapes[0][1]
    n = min(grid.n_outputs for grid in grids)
    first, first_before = (
        each[: rows * width].reshape(rows, width)
        for each, width in ((weights, columns), (before, old_columns))
    )
    first[:, :n] = first_before[:, :n]
    weights[rows * columns :] = before[rows * old_columns :]
