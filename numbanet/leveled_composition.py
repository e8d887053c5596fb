"""Composition with one more input: the level up to which grids are read."""

import dataclasses

from numbanet.composition import INPUT, Columns, Composition, ModelPart
from numbanet.encodings.base import AbstractEncoding
from numbanet.encodings.composite.encoding import Composite
from numbanet.encodings.composite.grids import grids_within
from numbanet.encodings.composite.pair import AbstractPair
from numbanet.encodings.composite.selection import Selection
from numbanet.encodings.grid import Grid
from numbanet.encodings.leveled import Leveled
from numbanet.encodings.padded import Padded


def leveled(encoding: AbstractEncoding, n_dims: int, first_dim: int = 0) -> AbstractEncoding:
    """Encoding of inputs from first_dim on, of n_dims, the last of which is the level."""
    if isinstance(encoding, Grid):
        return Leveled(encoding, first_dim, n_dims)
    if isinstance(encoding, Composite):
        return leveled(encoding.encoding, n_dims, first_dim)
    if isinstance(encoding, AbstractPair):
        sides = (leveled(each, n_dims, first_dim) for each in (encoding.left, encoding.right))
        return type(encoding)(*sides)
    if isinstance(encoding, Selection):
        return leveled(encoding.encoding, n_dims, first_dim + encoding.first_dim)
    if isinstance(encoding, Padded) and isinstance(encoding.encoding, Grid):
        return Padded(Leveled(encoding.encoding, first_dim, n_dims), encoding.n_columns)
    return Selection(encoding, first_dim, n_dims)


def has_grid(encoding: AbstractEncoding) -> bool:
    return any(True for _ in grids_within(encoding))


def leveled_composition(composition: Composition) -> Composition:
    """Equal model with one more input.

    Raises:
        TypeError: it has no grid.
    """
    n = composition.n_input_dims
    if not any(has_grid(part.encoding) for part in composition.parts):
        raise TypeError("max_level: the model has no grid; leave it out")

    def of(part: ModelPart) -> ModelPart:
        if not has_grid(part.encoding):
            return part
        inputs = *part.inputs, Columns(INPUT, n, n + 1)
        own = leveled(part.padded, part.encoding.n_dims + 1)
        return dataclasses.replace(part, inputs=inputs, encoding=own)

    return Composition(n + 1, tuple(map(of, composition.parts)), composition.outputs)
