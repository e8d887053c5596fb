"""Structure of a model: parts, each an encoding with or without a network, and their connections.

A part reads columns of the model's inputs and of the outputs of parts before it. All parameters
are one vector: of one part after the other the matrices, then the tables. A model of one encoding
and one network is a composition of one part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from numbanet.encoded_network import EncodedNetwork
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.composite.grids import grids_within
from numbanet.encodings.grid import Grid
from numbanet.networks.base import AbstractMLP, next_multiple
from numbanet.optimizers.base import ParamLayout
from numbanet.quantization import Quantized
from numbanet.registry import option_values

INPUT = -1  # the number of the model's inputs among the parts
ALIGNMENT = 8  # parameters: where tables of a part may begin, so that 16 bytes are read at a time


class Columns(NamedTuple):
    """Contiguous columns of the model's inputs, or of the outputs of a part."""

    source: int  # number of the part, or INPUT
    first: int
    stop: int

    @property
    def n(self) -> int:
        return self.stop - self.first


class Place(NamedTuple):
    """Position of named parameters in the vector of all, and their shape."""

    start: int
    shape: tuple[int, ...]

    @property
    def stop(self) -> int:
        return self.start + math.prod(self.shape)


@dataclass(frozen=True)
class ModelPart:
    """Part of a model: an encoding, and the network that reads it, if there is one.

    Args:
        name: of its parameters, in front; empty for that of a model with one part.
        inputs: the columns that it reads, side by side.
        encoding: as it is configured, without padding.
        n_outputs: of the network, or the features with padding.
        shares: the number of an equal part whose parameters it has.
    """

    name: str
    inputs: tuple[Columns, ...]
    encoding: AbstractEncoding
    network: AbstractMLP | None
    n_outputs: int
    shares: int | None = None

    __getstate__ = option_values  # without cached functions

    @property
    def n_matrix_params(self) -> int:
        return 0 if self.network is None else self.network.n_params

    @property
    def n_params(self) -> int:
        return self.n_matrix_params + self.encoding.n_params

    @cached_property
    def input_dims(self) -> tuple[int, ...] | None:
        """Numbers of the model's inputs that it reads, in order; None if it reads other parts."""
        if any(columns.source != INPUT for columns in self.inputs):
            return None
        return tuple(dim for columns in self.inputs for dim in range(columns.first, columns.stop))

    @cached_property
    def padded(self) -> AbstractEncoding:
        """Encoding with padding, as wide as the part's outputs."""
        width = self.n_outputs if self.network is None else self.network.n_input_dims
        return self.encoding.padded(width)

    def named_shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names within the part, and shapes, in the order of the parameters."""
        before = ""
        if self.network is not None:
            before = "encoding."
            shapes, n_biases = self.network.shapes, len(self.network.bias_starts)
            yield from ((f"network.{k}", shape) for k, shape in enumerate(shapes))
            yield from ((f"network.biases.{k}", shapes[k][:1]) for k in range(n_biases))
        for name, shape in self.encoding.param_shapes.items():
            yield before + name, shape


@dataclass(frozen=True)
class Composition:
    """Parts in the order of evaluation; the outputs are some of their columns, side by side."""

    n_input_dims: int
    parts: tuple[ModelPart, ...]
    outputs: tuple[Columns, ...]

    __getstate__ = option_values

    @classmethod
    def of(
        cls, encoding: AbstractEncoding, network: AbstractMLP | None, n_outputs: int | None = None
    ) -> Composition:
        """Composition of one part; n_outputs is the padded width of an encoding by itself."""
        if n_outputs is None:
            n_outputs = encoding.n_outputs if network is None else network.n_output_dims
        n_dims = encoding.n_dims
        part = ModelPart("", (Columns(INPUT, 0, n_dims),), encoding, network, n_outputs)
        return cls(n_dims, (part,), (Columns(0, 0, n_outputs),))

    @property
    def is_named(self) -> bool:
        """Whether the config has parts with names."""
        return len(self.parts) > 1 or self.parts[0].name != ""

    @cached_property
    def lone_network(self) -> EncodedNetwork | None:
        """Encoding of all inputs and the network that reads it, or None if there is more."""
        part, *others = self.parts
        all_inputs, all_outputs = tuple(range(self.n_input_dims)), Columns(0, 0, part.n_outputs)
        is_whole = part.input_dims == all_inputs and self.outputs == (all_outputs,)
        if others or part.network is None or not is_whole:
            return None
        return EncodedNetwork(part.padded, part.network)

    @property
    def n_output_dims(self) -> int:
        return sum(columns.n for columns in self.outputs)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """First parameter of each part; up to 7 zeros before it keep tables aligned."""
        starts, end = [], 0
        for part in self.parts:
            if part.shares is not None:
                starts.append(starts[part.shares])
                continue
            n = part.n_matrix_params
            starts.append(next_multiple(end + n, ALIGNMENT) - n if self.is_named else 0)
            end = starts[-1] + part.n_params
        return tuple(starts)

    @cached_property
    def n_params(self) -> int:
        own = zip(self.starts, self.parts, strict=True)
        n = max(start + part.n_params for start, part in own)
        return next_multiple(n, ALIGNMENT) if self.is_named else n

    @property
    def boundary(self) -> int:
        """Parameter that is aligned to 16 bytes: the first one of the tables."""
        return 0 if self.is_named else self.parts[0].n_matrix_params

    @cached_property
    def quantized(self) -> tuple[Quantized, ...]:
        """Ranges of parameters that kernels read in few bits."""
        return tuple(
            each.after(start + part.n_matrix_params)
            for part, start in zip(self.parts, self.starts, strict=True)
            if part.shares is None
            for each in part.encoding.quantized
        )

    @cached_property
    def places(self) -> dict[str, Place]:
        """Places of all named parameters, in their order."""
        places = {}
        for part, start in zip(self.parts, self.starts, strict=True):
            if part.shares is not None:
                continue
            at, prefix = start, f"{part.name}." if self.is_named else ""
            for name, shape in part.named_shapes():
                places[prefix + name] = Place(at, shape)
                at = places[prefix + name].stop
        return places

    @cached_property
    def layout(self) -> ParamLayout:
        """Layout of the parameters, as an optimizer sees it."""
        if not self.is_named:
            network = self.parts[0].network
            shapes = () if network is None else network.shapes
            return ParamLayout(
                self.n_params, shapes, names=self.named_ranges, boundary=self.boundary
            )
        shapes, starts = [], []
        for part, start in zip(self.parts, self.starts, strict=True):
            if part.network is None or part.shares is not None:
                continue
            shapes += part.network.shapes
            sizes = (math.prod(shape) for shape in part.network.shapes[:-1])
            starts += accumulate(sizes, initial=start)
        return ParamLayout(
            self.n_params, tuple(shapes), starts=tuple(starts), names=self.named_ranges
        )

    @cached_property
    def grids(self) -> tuple[tuple[str, Grid, int], ...]:
        """Grids, each with the prefix of its levels' names, and its first parameter."""
        names = {place.start: name for name, place in self.places.items()}
        found = []
        for part, start in zip(self.parts, self.starts, strict=True):
            if part.shares is None:
                for grid, first in grids_within(part.encoding, start + part.n_matrix_params):
                    found.append((names[first].removesuffix("params"), grid, first))
        return tuple(found)

    @property
    def named_ranges(self) -> tuple[tuple[str, int, int], ...]:
        """Name, first parameter and last + 1 of all parts, also of levels within grids."""
        places = [(name, place.start, place.stop) for name, place in self.places.items()]
        for name, grid, first in self.grids:
            ends = [first, *(first + end for end in grid.level_ends)]
            pairs = enumerate(pairwise(ends))
            places += [(f"{name}levels.{k}", *each) for k, each in pairs]
        return tuple(places)

    @property
    def grid_dims(self) -> tuple[int, ...]:
        """Inputs of the model that a grid reads, which covers [0, 1] in each."""
        found = set()
        for part in self.parts:
            read = [
                columns.first + k if columns.source == INPUT else None
                for columns in part.inputs
                for k in range(columns.n)
            ]
            found |= {read[dim] for dim in part.encoding.grid_dims}
        return tuple(sorted(found - {None}))

    def initial_params(self, rng) -> np.ndarray:
        """Initial values, float32 [n_params]: for each part the network's, then the encoding's."""
        params = np.zeros(self.n_params, np.float32)
        for part, start in zip(self.parts, self.starts, strict=True):
            if part.shares is not None:
                continue
            middle = start + part.n_matrix_params
            if part.network is not None:
                params[start:middle] = part.network.initial_params(rng)
            params[middle : start + part.n_params] = part.encoding.initial_params(rng)
        return params
