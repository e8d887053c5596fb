"""Device functions of a grid: of a level, of a partition, of all levels, of many samples."""

from collections.abc import Callable
from functools import cached_property

from numbanet.device import device
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.grid import interpolation, level, pairs, partials, partitions, rows


def derived(form, name: str):
    """Property of a grid that derives a function from another one."""
    return cached_property(lambda grid: form(grid, getattr(grid, name)))


class GridFunctions(AbstractEncoding):
    """Device functions of a grid that follow from its sizes, and from how it finds entries."""

    n_levels: int
    levels: tuple  # a Level each
    level_ends: tuple[int, ...]  # where the parameters of each level end
    interpolation: str
    stochastic_interpolation: bool
    n_features_per_level: int
    begins_even: bool

    @property
    def n_derivatives(self) -> int:
        """Order of derivatives that the interpolation has between the vertices."""
        return {"Nearest": 0, "Linear": 1, "Smoothstep": 2}[self.interpolation]

    @property
    def n_outputs(self) -> int:
        return self.n_levels * self.n_features_per_level

    @property
    def n_params(self) -> int:
        return self.level_ends[-1]

    @cached_property
    def partition_columns(self) -> tuple[tuple[int, int], ...]:
        """Features of each level: one partition per level."""
        width = self.n_features_per_level
        return tuple((k * width, (k + 1) * width) for k in range(self.n_levels))

    @property
    def partition_param_ends(self) -> tuple[int, ...]:
        if self.n_accessed_pairs == 0:
            return ()  # tables in fast memory hold pairs
        return self.level_ends

    @property
    def required_output_alignment(self) -> int:
        return self.n_features_per_level

    @property
    def n_corners(self) -> int:
        """Number of entries that a sample reads per level."""
        return 1 if self.interpolation == "Nearest" else 1 << self.n_dims

    @property
    def n_pairs(self) -> int:
        """Number of pairs of features of an entry."""
        return self.n_features_per_level // 2

    @property
    def n_accessed_pairs(self) -> int:
        """Number of pairs that are read and added to at once."""
        return self.n_pairs if self.begins_even else 0

    @property
    def n_cell_numbers(self) -> int:
        """Number of integers that say where a cell is."""
        return self.n_dims

    @property
    def n_factors(self) -> int:
        """Number of factors of the weights of the corners; see interpolation.py."""
        return 6 * self.n_dims

    @cached_property
    def level_constants(self):
        """(k, params) -> the Level that functions of level.py take; once for many samples."""
        levels = self.levels

        @device
        def level_constants(k, params):
            return levels[k]

        return level_constants

    # One level and one sample: see level.py.

    level_forward = cached_property(level.forward)
    level_backward_params = cached_property(level.backward_params)
    level_stochastic_backward_params = cached_property(level.stochastic_backward_params)
    level_backward_input = cached_property(level.backward_input)
    level_double_backward_input = cached_property(level.double_backward_input)
    level_double_backward_params = cached_property(level.double_backward_params)
    level_add_partial = cached_property(partials.level_add_partial)
    level_partial_backward_params = cached_property(partials.level_partial_backward_params)
    # (level, x, cell, factors): the cell of x, and the factors of its corners.
    locate = cached_property(level.locate)
    # (level, cell, factors, a, b, weights) of the corners, differentiated by inputs a and b, -1 for
    # none; (level, cell, factors, direction, weights), differentiated along a direction.
    write_weights = cached_property(interpolation.weights)
    write_weights_along = cached_property(interpolation.weights_along)

    has_edges = True
    pairs_of_float32 = True

    @property
    def n_ends(self) -> int:
        """Number of entries of an edge; one corner, nearest or random, is an edge too."""
        return 1 if self.n_corners == 1 or self.stochastic_interpolation else 2

    @property
    def n_edges(self) -> int:
        """Number of edges that a sample's gradient of a level is added to; see edges.py."""
        return 1 if self.n_ends == 1 else self.n_corners // 2

    # All levels and one sample, then one level, which is a partition: see partitions.py.

    forward = derived(partitions.of_all_levels, "level_forward")
    backward_params = derived(partitions.of_all_levels, "level_backward_params")
    double_backward_params = derived(partitions.of_all_levels, "level_double_backward_params")
    backward_input = cached_property(partitions.all_backward_input)
    double_backward_input = cached_property(partitions.all_double_backward_input)

    add_partial = derived(partials.all_partials, "partition_add_partial")
    partial_backward_params = derived(partials.all_partials, "partition_partial_backward_params")

    partition_forward = derived(partitions.of_level, "level_forward")
    partition_add_partial = derived(partitions.of_level, "level_add_partial")
    partition_partial_backward_params = derived(
        partitions.of_level, "level_partial_backward_params"
    )
    partition_double_backward_params = derived(partitions.of_level, "level_double_backward_params")
    partition_backward_input = cached_property(partitions.backward_input)
    partition_double_backward_input = cached_property(partitions.double_backward_input)

    @cached_property
    def partition_backward_params(self):
        if self.stochastic_interpolation:
            return partitions.stochastic_backward_params(self)
        return partitions.backward_params(self)

    def partition_forward_pairs(self, precision: str, first_param: int) -> Callable | None:
        is_served = self.n_accessed_pairs > 0 and self.n_corners <= pairs.MOST_BLENDED_CORNERS
        if precision == "float32" or not is_served:
            return None
        load = pairs.load_words(self, precision, first_param)
        return partitions.of_level(self, pairs.forward_pairs(self, precision, load))

    # One level and many samples: see rows.py.

    forward_rows = cached_property(rows.forward_rows)
    double_backward_params_rows = cached_property(rows.double_backward_params_rows)
    partial_backward_params_rows = cached_property(partials.partial_backward_params_rows)

    @property
    def needs_whole_batch(self) -> bool:
        """Whether random corners are drawn by the number of the sample in its batch."""
        return self.stochastic_interpolation

    @cached_property
    def backward_params_rows(self):
        if self.stochastic_interpolation:
            return rows.stochastic_backward_params_rows(self)
        return rows.backward_params_rows(self)
